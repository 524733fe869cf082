"""The second opinion of the coverage table: bundles held against the source by the runtimes alone, without seatrial.

`coverage_check.py weights NAME OUT` writes weights for a timm architecture; `lite N CHECKPOINT OUT` those of a Lite;
`inputs FILE OUT LOW HIGH` an example for a TFLite file; `check CASE.json` prints, as JSON, the lowest SQNR of each
bundle's outputs on inputs that the export never saw; `int8 CASE.json` compares int8 files with their Keras model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
EXACT_DB = 200.0  # written for equal arrays
# Lowest dB, and by how many dB an error must be smaller than what two inputs make differ. Two int8 kernels round
# differently.
BARS = {"fp32": (80.0, 20.0), "fp16": (45.0, 20.0), "int8": (20.0, 6.0)}
DRAWS = 3


def sqnr_db(want: np.ndarray, have: np.ndarray) -> float:
    """10·log10(Σ want² / Σ (want − have)²) over all elements."""
    want, have = want.astype(np.float64), have.astype(np.float64)
    if not np.isfinite(have).all() and np.isfinite(want).all():
        return -EXACT_DB
    error, power = float(((want - have) ** 2).sum()), float((want**2).sum())
    if error == 0:
        return EXACT_DB
    return 10 * float(np.log10(power / error)) if power else -EXACT_DB


def load_timm() -> Any:
    """The module timm; torchvision's CUDA operators are declared where torch has no CUDA."""
    import torch

    torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        load_timm.kept = library  # type: ignore[attr-defined]  # the declarations go with it
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    import timm

    return timm


def write_weights(name: str, out: Path) -> None:
    """Random weights under which every branch says something.

    An untrained network has zeroed gates, heads and last norms: whole branches answer 0 and any converter is right.
    So what is one constant is drawn anew, and batch norms take the statistics of noise.
    """
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(11)
    model = load_timm().create_model(name).train()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point() or value.numel() == 0 or bool((value != value.flatten()[0]).any()):
                continue
            if value.ndim >= 2 and not value.any() and value.shape[-1] > 1:
                value.normal_(0, 0.02 if "pos" in key else value[0].numel() ** -0.5)
            elif value.ndim == 0 or key.endswith(("bias", "running_mean")):
                value.uniform_(-0.2, 0.2)
            else:
                value.uniform_(0.4, 1.1)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 0.5
        for _ in range(4 if norms else 0):
            model(torch.randn(4, *model.pretrained_cfg["input_size"]))
    state = {key: value.clone().contiguous() for key, value in model.state_dict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out)


def write_lite(variant: int, checkpoint: Path, out: Path) -> None:
    """The published weights of an EfficientNet-Lite under timm's names: the tensors come in the same order."""
    import torch
    from safetensors.torch import save_file

    names = list(load_timm().create_model(f"tf_efficientnet_lite{variant}").state_dict())
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = {k: v.clone().contiguous() for k, v in zip(names, stored.values(), strict=True)}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, out)


def write_inputs(file: Path, out: Path, low: float, high: float) -> None:
    """One example for a TFLite file: floats between these bounds; integers those that stand for such floats."""
    from ai_edge_litert import interpreter as litert

    reader = litert.Interpreter(str(file))
    runner = reader.get_signature_runner() if reader.get_signature_list() else None
    ports = runner.get_input_details() if runner else {head["name"]: head for head in reader.get_input_details()}
    random = np.random.default_rng(7)
    arrays = {}
    for name, port in ports.items():
        values = random.uniform(low, high, port["shape"]) if high > low else random.standard_normal(port["shape"])
        if np.dtype(port["dtype"]).kind in "iu":
            limits, (scale, zero) = np.iinfo(port["dtype"]), port["quantization"]
            values = np.clip(np.round(values / (scale or 1) + zero), limits.min, limits.max)
        arrays[name] = values.astype(port["dtype"])
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays)


# The references: each answers with a function from inputs to outputs by name.


def timm_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """timm in eager mode, one thread."""
    import torch
    from safetensors.torch import load_file

    model = load_timm().create_model(case["model"]).eval()
    model.load_state_dict(load_file(case["weights"]))

    def run(feed: Arrays) -> Arrays:
        with torch.no_grad():
            return {"output": model(torch.from_numpy(feed["x"])).numpy()}

    return run


def hf_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """transformers in eager mode."""
    import torch

    load_timm()  # for torchvision, which transformers imports too
    from transformers import AutoModel

    model = AutoModel.from_pretrained(case["model"], local_files_only=True, attn_implementation="eager").eval()

    def run(feed: Arrays) -> Arrays:
        with torch.no_grad():
            answer = model(**{k: torch.from_numpy(v) for k, v in feed.items()})
        return {k: v.numpy() for k, v in answer.items()}

    return run


def load_keras(path: str) -> Any:
    """A Keras file; Keras 2 wrote a ``groups`` that Keras 3 doesn't take."""
    import keras

    class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    older = {"DepthwiseConv2D": DepthwiseConv2D}
    return keras.models.load_model(path, compile=False, custom_objects=older)


def keras_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """The Keras model, called without compiling."""
    model = load_keras(case["model"])
    return lambda feed: {"output": np.asarray(model(next(iter(feed.values())), training=False))}


def onnx_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """ONNX Runtime without its graph optimisations."""
    return open_onnxruntime(Path(case["model"]), plain=True)


def tflite_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """LiteRT's plain kernels, without a delegate."""
    return open_tflite(Path(case["model"]), plain=True)


def ir_reference(case: dict[str, Any]) -> Callable[[Arrays], Arrays]:
    """The ONNX file that the IR was made of."""
    return open_onnxruntime(Path(case["origin"]), plain=True)


# The runtimes.


def open_onnxruntime(path: Path, plain: bool = False) -> Callable[[Arrays], Arrays]:
    """A session on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs, names = [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]

    def run(feed: Arrays) -> Arrays:
        feed = by_name(feed, inputs)
        return dict(zip(names, session.run(None, feed), strict=True))

    return run


def open_openvino(path: Path) -> Callable[[Arrays], Arrays]:
    """Compiled for the CPU in full precision."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    inputs = [port.any_name for port in compiled.inputs]
    names = [port.any_name if port.names else f"output_{i}" for i, port in enumerate(compiled.outputs)]

    def run(feed: Arrays) -> Arrays:
        answer = compiled(by_name(feed, inputs))
        return {name: np.array(answer[i]) for i, name in enumerate(names)}

    return run


def open_tflite(path: Path, plain: bool = False) -> Callable[[Arrays], Arrays]:
    """An interpreter: with XNNPACK as it comes, or without any delegate."""
    from ai_edge_litert import interpreter as litert

    kinds = litert.OpResolverType
    kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else kinds.AUTO
    reader = litert.Interpreter(str(path), experimental_op_resolver_type=kind, num_threads=1)
    if reader.get_signature_list():
        runner = reader.get_signature_runner(next(iter(reader.get_signature_list())))
        inputs = list(runner.get_input_details())
        return lambda feed: dict(runner(**by_name(feed, inputs)))
    reader.allocate_tensors()
    heads, tails = reader.get_input_details(), reader.get_output_details()

    def run(feed: Arrays) -> Arrays:
        named = by_name(feed, [head["name"] for head in heads])
        for head in heads:
            reader.set_tensor(head["index"], named[head["name"]])
        reader.invoke()
        return {tail["name"]: reader.get_tensor(tail["index"]) for tail in tails}

    return run


OPEN: dict[str, Callable[[Path], Callable[[Arrays], Arrays]]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "tflite": open_tflite,
}
REFERENCE: dict[str, Callable[[dict[str, Any]], Callable[[Arrays], Arrays]]] = {
    "timm": timm_reference,
    "hf": hf_reference,
    "keras": keras_reference,
    "onnx": onnx_reference,
    "tflite": tflite_reference,
    "ir": ir_reference,
}


def by_name(given: Arrays, names: list[str]) -> Arrays:
    """The arrays under these names: by name where names agree but for their punctuation, else in order."""
    plain = {re.sub(r"\W|_", "", key.split(":")[0]).lower(): key for key in given}
    found = {name: plain.get(re.sub(r"\W|_", "", name.split(":")[0]).lower()) for name in names}
    if None in found.values() or len(set(found.values())) < len(names):
        found = dict(zip(names, given, strict=True))
    return {name: given[key] for name, key in found.items() if key}


def draw(inputs: list[dict[str, Any]], case: dict[str, Any], seed: int) -> Arrays:
    """Fresh inputs as the manifest declares them; free axes get ``case["free"]``, floats ``case["scale"]``."""
    random = np.random.default_rng(1000 + seed)
    feed: Arrays = {}
    low, high = case.get("scale", (0, 0))
    for spec in inputs:
        free = case["free"] + (3 * seed if case["free"] > 1 else 0)
        shape = [axis if isinstance(axis, int) else free for axis in spec["shape"]]
        if not all(isinstance(axis, int) for axis in spec["shape"]):
            shape = case["shapes"].get(spec["name"], shape)
        kind = np.dtype(spec["dtype"])
        if kind.kind == "f":
            values = random.uniform(low, high, shape) if high > low else random.standard_normal(shape)
        elif "mask" in spec["name"]:
            values = np.arange(shape[-1])[None] < shape[-1] - 2 * seed
        elif kind.kind == "b":
            values = random.integers(0, 2, shape)
        else:
            limits = np.iinfo(kind)
            least = spec["low"] if spec.get("low") is not None else max(limits.min, -128)
            most = spec["high"] if spec.get("high") is not None else min(limits.max, 255) + 1
            values = random.integers(int(least), int(most), shape)  # the highest is left out
        feed[spec["name"]] = np.asarray(values).astype(kind)
    return feed


def check(case: dict[str, Any]) -> dict[str, Any]:
    """For each bundle the lowest SQNR over its outputs, all draws pooled, and whether the reference says anything."""
    reference = REFERENCE[case["kind"]](case)
    return {target: _check_one(case, target, Path(folder), reference) for target, folder in case["bundles"].items()}


def _check_one(
    case: dict[str, Any], target: str, folder: Path, reference: Callable[[Arrays], Arrays]
) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        run = OPEN[target](folder / manifest["model"])
        feeds = [draw(manifest["inputs"], case, seed) for seed in range(DRAWS)]
        wants = [reference(feed) for feed in feeds]
        haves = [by_name(run(feed), list(want)) for feed, want in zip(feeds, wants, strict=True)]
    except Exception as error:
        return {"db": None, "problem": f"{type(error).__name__}: {str(error).strip()[:300]}"}
    levels, told = [], []
    for name in wants[0]:
        for want, have in zip(wants, haves, strict=True):
            if want[name].shape != have[name].shape:
                return {"db": None, "problem": f"{name}: shape {have[name].shape}, the source's {want[name].shape}"}
        joined = [np.concatenate([a[name].ravel() for a in answers]) for answers in (wants, haves)]
        levels.append(sqnr_db(*joined))
        first, second = wants[0][name], wants[1][name]
        told.append(levels[-1] - (sqnr_db(first, second) if first.shape == second.shape else 0))
    # Where the source answers two inputs nearly alike, a constant would pass too.
    least, telling = BARS[manifest["precision"]]
    blind = "" if max(told) >= telling else "the source answers two inputs alike"
    return {"db": min(levels), "least": least, "problem": blind}


def compare_int8(case: dict[str, Any]) -> dict[str, Any]:
    """Two int8 files against the fp32 Keras model on the same inputs: bytes, SQNR and agreement of the top class."""
    reference = keras_reference(case)
    inputs = np.load(case["inputs"])["x"].astype(np.float32)
    want = np.concatenate([reference({"x": x[None]})["output"] for x in inputs])
    labels = np.array(case["labels"]) if case.get("labels") else None
    rows = {"keras fp32": {"bytes": 0, "correct": _correct(want, labels), "of": len(want)}}
    tensorflow_int8(case["model"], np.load(case["calibration"]), Path(case["made"]))
    for name, path in {**case["files"], "TensorFlow's converter": case["made"]}.items():
        have = np.concatenate([_dequantized(path, x[None]) for x in inputs])
        rows[name] = {
            "bytes": Path(path).stat().st_size,
            "db": sqnr_db(want, have),
            "agree": int((want.argmax(-1) == have.argmax(-1)).sum()),
            "of": len(want),
            "correct": _correct(have, labels),
        }
    return rows


def tensorflow_int8(model: str, calibration: Any, out: Path) -> None:
    """What TensorFlow's own converter makes of a Keras file with these images."""
    import tensorflow as tf

    [images] = calibration.values()
    converter = tf.lite.TFLiteConverter.from_keras_model(load_keras(model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    out.write_bytes(converter.convert())


def _correct(answers: np.ndarray, labels: np.ndarray | None) -> int | None:
    return None if labels is None else int((answers.argmax(-1) == labels).sum())


def _dequantized(path: str, inputs: np.ndarray) -> np.ndarray:
    """A file's float answer to float inputs, whatever type stands at its boundary."""
    from ai_edge_litert import interpreter as litert

    reader = litert.Interpreter(path, num_threads=1)
    reader.allocate_tensors()
    head, tail = reader.get_input_details()[0], reader.get_output_details()[0]
    scale, zero = head["quantization"]
    if np.dtype(head["dtype"]).kind == "i":
        limits = np.iinfo(head["dtype"])
        inputs = np.clip(np.round(inputs / scale + zero), limits.min, limits.max)
    reader.set_tensor(head["index"], inputs.astype(head["dtype"]))
    reader.invoke()
    answer = reader.get_tensor(tail["index"]).astype(np.float32)
    scale, zero = tail["quantization"]
    return (answer - zero) * scale if scale else answer


def main(arguments: list[str]) -> int:
    """See the module's description."""
    command, *rest = arguments
    if command == "weights":
        write_weights(rest[0], Path(rest[1]))
    elif command == "inputs":
        write_inputs(Path(rest[0]), Path(rest[1]), float(rest[2]), float(rest[3]))
    elif command == "lite":
        write_lite(int(rest[0]), Path(rest[1]), Path(rest[2]))
    else:
        case = json.loads(Path(rest[0]).read_text(encoding="utf-8"))
        print("ANSWER " + json.dumps({"check": check, "int8": compare_int8}[command](case)))
    assert not any(name.split(".")[0] == "seatrial" for name in sys.modules), "the second opinion is no longer one"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
