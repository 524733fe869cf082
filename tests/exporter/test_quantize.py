"""Static int8: a small convolutional net through the real converters and each runtime's own quantizer."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from seatrial.core import samples
from seatrial.core.errors import ConverterFailed, Unsupported, UsageError
from seatrial.exporter.quantize import function

np = pytest.importorskip("numpy")

TARGETS = ("onnxruntime", "openvino", "tflite")
SUFFIX = {"onnxruntime": ".onnx", "openvino": ".xml", "tflite": ".tflite"}
AVX2 = ("avx2", "fma")
SECRET = "/home/somebody/secret.py"

Run = Callable[[Any], Any]


def _images(seed: int, count: int) -> list[Any]:
    """Smooth random pictures (1, 3, 16, 16) in -1..1."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(-1, 1, (count, 1, 3, 5, 5))
    return [np.repeat(np.repeat(x, 4, 2), 4, 3)[:, :, :16, :16].astype(np.float32) for x in small]


def _module(target: str) -> Any:
    return importlib.import_module(function(target).partition(":")[0])


def _onnx(path: Path) -> None:
    """Convolution, depthwise convolution, pointwise convolution, residual, pooling, classifier."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"a": (16, 3, 3, 3), "b": (16, 1, 3, 3), "c": (16, 16, 1, 1), "d": (5, 16)}
    tensors = [
        numpy_helper.from_array((rng.normal(0, 1.5 / np.prod(s[1:]) ** 0.5, s)).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    tensors += [
        numpy_helper.from_array(rng.normal(0, 0.1, s[0]).astype(np.float32), f"{n}_") for n, s in shapes.items()
    ]
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a", "a_"], ["a0"], "first", SECRET, **pads),
        helper.make_node("Relu", ["a0"], ["a1"]),
        helper.make_node("Conv", ["a1", "b", "b_"], ["b0"], group=16, **pads),
        helper.make_node("Relu", ["b0"], ["b1"]),
        helper.make_node("Conv", ["b1", "c", "c_"], ["c0"]),
        helper.make_node("Add", ["a1", "c0"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "d_"], ["y"], transB=1),
    ]
    ports = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", (1, 3, 16, 16)), ("y", (1, 5)))]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], tensors, doc_string=SECRET)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    for message in (model, model.graph, *model.graph.node):
        entry = message.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.stack_trace", SECRET
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _openvino(path: Path) -> None:
    ov = pytest.importorskip("openvino")
    if not find_spec("nncf"):
        pytest.skip("nncf is not installed")
    _onnx(path.with_suffix(".onnx"))
    ov.save_model(ov.convert_model(path.with_suffix(".onnx")), path, compress_to_fp16=False)


TFLITE = """
import sys
import litert_torch, torch
torch.manual_seed(0)
relu = torch.nn.ReLU
net = torch.nn.Sequential(
    *(torch.nn.Conv2d(3, 16, 3, padding=1), relu(), torch.nn.Conv2d(16, 16, 3, padding=1, groups=16), relu()),
    *(torch.nn.Conv2d(16, 16, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 5)),
).eval()
with torch.no_grad():
    for weights in net.parameters():
        weights *= 2.5 if weights.ndim > 1 else 1
litert_torch.convert(net, (torch.zeros(1, 3, 16, 16),)).export(sys.argv[1])
"""


def _tflite(path: Path) -> None:
    """In a process of its own, as the exporter does it: torch and litert_torch meet no other runtime there."""
    if not all(map(find_spec, ("torch", "litert_torch", "ai_edge_quantizer"))):
        pytest.skip("torch, litert_torch or ai_edge_quantizer is not installed")
    subprocess.run([sys.executable, "-c", TFLITE, str(path)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """Target -> (the fp32 model, its calibration samples), made once."""
    done: dict[str, tuple[Path, Path]] = {}

    def make(target: str) -> tuple[Path, Path]:
        if target not in done:
            folder = tmp_path_factory.mktemp(target)
            model = folder / f"model{SUFFIX[target]}"
            {"onnxruntime": _onnx, "openvino": _openvino, "tflite": _tflite}[target](model)
            name = "args_0" if target == "tflite" else "x"
            samples.save(folder / "samples.npz", [{name: image} for image in _images(1, 24)])
            done[target] = model, folder / "samples.npz"
        return done[target]

    return make


def _quantize(target: str, source: tuple[Path, Path], out: Path, **options: str) -> Mapping[str, Any]:
    module = _module(target)
    asked = {**module.resolve(AVX2), **options}
    result: Mapping[str, Any] = module.quantize(str(source[0]), str(source[1]), str(out), asked)
    return result


def _open(target: str, path: Path) -> tuple[Run, set[str], set[str]]:
    """How to run it, the dtypes at its boundary, and the kinds of tensors that it holds."""
    if target == "onnxruntime":
        import onnx
        import onnxruntime as ort

        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        ports = {port.type for port in [*session.get_inputs(), *session.get_outputs()]}
        held = {onnx.TensorProto.DataType.Name(t.data_type).lower() for t in onnx.load(path).graph.initializer}
        return lambda x: session.run(None, {"x": x})[0], {p[7:-1].replace("float", "float32") for p in ports}, held
    if target == "openvino":
        import openvino as ov

        model = ov.Core().read_model(path)
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        kinds = {p.get_element_type().to_dtype().name for p in [*model.inputs, *model.outputs]}
        held = {op.output(0).get_element_type().to_dtype().name for op in model.get_ops() if op.get_output_size()}
        return lambda x: compiled(x)[0], kinds, held
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    run = interpreter.get_signature_runner()
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    held = {t["dtype"].__name__ for t in interpreter.get_tensor_details()}
    return lambda x: run(args_0=x)["output_0"], {t["dtype"].__name__ for t in ends}, held


def _sqnr_db(reference: Run, run: Run) -> float:
    images = _images(2, 24)
    want = np.concatenate([np.array(reference(x)) for x in images])
    got = np.concatenate([np.array(run(x)) for x in images])
    return float(10 * np.log10(np.square(want).sum() / np.square(want - got).sum()))


@pytest.mark.parametrize("target", TARGETS)
def test_the_int8_model_computes_in_int8_has_float_ends_and_is_close(target: str, made: Any, tmp_path: Path) -> None:
    source = made(target)
    out = tmp_path / f"model{SUFFIX[target]}"
    done = _quantize(target, source, out)
    reference, _, before = _open(target, source[0])
    run, ends, held = _open(target, out)
    assert ends == {"float32"}
    assert "int8" in held and "int8" not in before
    convolutions = sum(n for kind, n in done["quantized"].items() if "conv" in kind.lower())
    assert convolutions == 3 and done["samples"] == 24
    assert _sqnr_db(reference, run) > 26


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_inputs_give_the_same_bytes(target: str, made: Any, tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "a", tmp_path / "other"):
        folder.mkdir()
        _quantize(target, made(target), folder / f"model{SUFFIX[target]}")
        found.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert found[0] == found[1]


def test_no_text_of_the_exporter_survives_in_the_onnx_file(made: Any, tmp_path: Path) -> None:
    source = made("onnxruntime")
    assert SECRET.encode() in source[0].read_bytes()
    _quantize("onnxruntime", source, tmp_path / "model.onnx")
    assert SECRET.encode() not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_an_unknown_option_or_value_is_refused_with_the_allowed_ones(target: str) -> None:
    module = _module(target)
    for options in ({"colour": "red"}, {"ops": "red"}):
        with pytest.raises(UsageError) as refused:
            module.quantize("model", "samples", "out", {**module.resolve(AVX2), **options})
        assert "ops" in refused.value.todo or "linear" in refused.value.todo
    with pytest.raises(UsageError, match="no such value"):
        module.quantize("model", "samples", "out", {**module.resolve(AVX2), "ops": "auto"})
    with pytest.raises(UsageError, match="undecided"):
        module.quantize("model", "samples", "out", {})


def test_the_cpu_decides_the_weights() -> None:
    onnxruntime, openvino = _module("onnxruntime"), _module("openvino")
    assert onnxruntime.resolve(AVX2)["weights"] == "paired"
    assert onnxruntime.resolve((*AVX2, "avx_vnni")) == {"activations": "u8", "weights": "full", "ops": "fitting"}
    assert onnxruntime.resolve(("fp", "asimd"))["activations"] == "s8"
    assert openvino.resolve(AVX2)["weights"] == "half"
    assert openvino.resolve(("avx512_vnni",))["weights"] == "full"


def test_paired_rows_never_overflow_sixteen_bits() -> None:
    pair_scales = _module("onnxruntime").pair_scales
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.normal(size=(300, 64)), np.ones((1, 64)), np.zeros((1, 64))]).astype(np.float32)
    levels = np.rint(rows / pair_scales(rows)[:, None]).astype(int)
    assert np.abs(levels).max() <= 127
    assert 255 * np.abs(levels[:, :-1] + levels[:, 1:]).max() <= 32767
    assert np.abs(levels).max(axis=1)[:300].mean() > 80  # 7-bit weights would stop at 64


def test_paired_weights_reach_the_file(made: Any, tmp_path: Path) -> None:
    import onnx
    from onnx.numpy_helper import to_array

    _quantize("onnxruntime", made("onnxruntime"), tmp_path / "model.onnx")
    tensors = {t.name: to_array(t).astype(int) for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    for name in ("c_quantized", "d_quantized"):
        row = tensors[name].reshape(tensors[name].shape[0], -1)
        assert np.abs(row[:, :-1] + row[:, 1:]).max() <= 128


@pytest.mark.parametrize("target", TARGETS)
def test_samples_that_do_not_fit_are_refused(target: str, made: Any, tmp_path: Path) -> None:
    model, _ = made(target)
    samples.save(tmp_path / "none.npz", [])
    samples.save(tmp_path / "other.npz", [{"z": np.zeros((1, 3, 16, 16), np.float32)}])
    with pytest.raises(UsageError, match="no calibration samples"):
        _quantize(target, (model, tmp_path / "none.npz"), tmp_path / "out")
    with pytest.raises(UsageError, match="sample 0 has inputs"):
        _quantize(target, (model, tmp_path / "other.npz"), tmp_path / "out")


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_sample_of_another_shape_is_an_error_with_the_way_out(target: str, made: Any, tmp_path: Path) -> None:
    samples.save(tmp_path / "wide.npz", [{"x": np.zeros((1, 3, 99, 16), np.float32)}])
    with pytest.raises(ConverterFailed, match="exact shapes"):
        _quantize(target, (made(target)[0], tmp_path / "wide.npz"), tmp_path / "out.xml")


@pytest.mark.parametrize("target", TARGETS)
def test_an_int8_model_is_not_quantized_twice(target: str, made: Any, tmp_path: Path) -> None:
    source = made(target)
    once = tmp_path / f"once{SUFFIX[target]}"
    _quantize(target, source, once)
    with pytest.raises(Unsupported, match="quantized already"):
        _quantize(target, (once, source[1]), tmp_path / f"twice{SUFFIX[target]}")


@pytest.mark.parametrize("weights", ["full", "paired"])
@pytest.mark.parametrize("activations", ["u8", "s8"])
def test_each_row_of_weights_has_its_scale_and_activations_the_asked_type(
    weights: str, activations: str, made: Any, tmp_path: Path
) -> None:
    import onnx
    from onnx.numpy_helper import to_array

    out = tmp_path / "model.onnx"
    _quantize("onnxruntime", made("onnxruntime"), out, weights=weights, activations=activations)
    model = onnx.load(out)
    tensors = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    scales = {node.input[0]: tensors[node.input[1]] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert {name: scales[f"{name}_quantized"].size for name in "abcd"} == {"a": 16, "b": 16, "c": 16, "d": 5}
    zeros = {tensors[node.input[2]].dtype.name for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert zeros == {{"u8": "uint8", "s8": "int8"}[activations]}
    assert {node.op_type for node in model.graph.node if "y" in node.output} == {"Gemm"}  # its sums stay float


def _attention(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(rng.normal(0, 0.3, (8, 8)).astype(np.float32), n) for n in "qkv"]
    nodes = [
        *(helper.make_node("MatMul", ["x", n], [f"{n}0"]) for n in "qkv"),
        helper.make_node("Transpose", ["k0"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q0", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v0"], ["mixed"]),
        helper.make_node("Add", ["x", "mixed"], ["sum"]),
        helper.make_node("Mul", ["sum", "sum"], ["squares"]),
        helper.make_node("MatMul", ["squares", "q"], ["y"]),
    ]
    ports = [helper.make_tensor_value_info(n, 1, (1, 6, 8)) for n in "xy"]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_attention_keeps_its_elementwise_parts_in_float(target: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    _attention(model)
    if target == "openvino":
        ov = pytest.importorskip("openvino")
        ov.save_model(ov.convert_model(model), tmp_path / "model.xml", compress_to_fp16=False)
        model = tmp_path / "model.xml"
    rng = np.random.default_rng(5)
    samples.save(tmp_path / "s.npz", [{"x": rng.normal(size=(1, 6, 8)).astype(np.float32)} for _ in range(8)])
    done = _quantize(target, (model, tmp_path / "s.npz"), tmp_path / f"int8{SUFFIX[target]}")
    assert done["ops"] == "linear" and done["quantized"]["MatMul"] >= 3
    assert "Add" not in done["quantized"]
    forced = _quantize(target, (model, tmp_path / "s.npz"), tmp_path / f"all{SUFFIX[target]}", ops="all")
    assert forced["ops"] == "all"
    if target == "openvino":
        assert _add_reads(tmp_path / "int8.xml").isdisjoint({"FakeQuantize"})
        assert _add_reads(tmp_path / "all.xml") == {"FakeQuantize"}
    else:
        assert "Add" in forced["quantized"]


def _add_reads(path: Path) -> set[str]:
    import openvino as ov

    [add] = [op for op in ov.Core().read_model(path).get_ops() if op.get_type_name() == "Add"]
    return {add.input_value(i).get_node().get_type_name() for i in range(2)}


def test_an_ir_with_attention_in_parts_is_recognised() -> None:
    ov = pytest.importorskip("openvino")
    x = ov.opset13.parameter([1, 6, 6], np.float32)
    shares = ov.opset13.softmax(x, -1)
    attention = ov.Model([ov.opset13.matmul(shares, x, False, False)], [x])
    classifier = ov.Model([ov.opset13.softmax(ov.opset13.matmul(x, x, False, False), -1)], [x])
    ops = _module("openvino")._ops
    assert ops(attention, "fitting") == "linear"
    assert ops(classifier, "fitting") == "all"
