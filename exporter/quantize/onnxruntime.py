"""Static int8 for ONNX Runtime: `quantize_static` in QDQ form, with rows scaled for the CPU's 8-bit arithmetic.

Options, all required by `quantize` (`resolve` fills them in for a CPU):

``activations``
    ``u8`` or ``s8``: the type between layers. ``s8`` costs time on x86, where it is shifted to ``u8``
    first (EfficientNet-Lite0 on AVX2: 0.92 of fp32's time instead of 0.65), and gains no accuracy.
``weights``
    ``full``: int8 rows use all of -127..127. Needs VNNI, or arm's instructions.
    ``paired``: rows are scaled so that no two neighbouring products overflow 16 bits. Before VNNI, x86
    multiplies two pairs of bytes and adds them *with saturation*: Lite0 falls to 8.5 dB from the
    18 dB of exact arithmetic. ONNX Runtime's own remedy, 7-bit weights, gives 13.3 dB; this gives 16.8 dB,
    at the same speed. (uint8 weights are exact, but its depthwise kernels for them take 5 times fp32's time.)
``ops``
    ``all``: every operation that ONNX Runtime can quantize.
    ``linear``: convolutions, matrix products and the activations fused into them.
    ``fitting``: ``linear`` for a graph with layer normalisation or attention, otherwise ``all``
    (ViT-Tiny with exact sums: 28 dB instead of 18 dB, at .95 and .91 of fp32's time; Lite0: no difference).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import samples
from ...core.errors import MissingPart, Unsupported, UsageError
from ..onnx_text import strip
from .options import checked, failed

if TYPE_CHECKING:
    import onnx
    from numpy import ndarray

OPTIONS: dict[str, tuple[str, ...]] = {
    "activations": ("u8", "s8"),
    "weights": ("full", "paired"),
    "ops": ("fitting", "all", "linear"),
}

# Where 8-bit products are summed in 32 bits: VNNI in its three forms; arm's NEON ("asimd"), from its manual, untried.
_WIDE = ("avx512_vnni", "avx_vnni", "amx_int8", "asimd")
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FUSED = ("Relu", "Clip")
_ATTENTION = ("LayerNormalization", "SkipLayerNormalization", "RMSNormalization", "Attention", "MultiHeadAttention")
_MIN_OPSET = 13  # the first whose DequantizeLinear takes one scale a channel


def resolve(cpu_flags: Sequence[str]) -> dict[str, str]:
    """Every option, decided for a CPU with these flags."""
    wide = any(flag in cpu_flags for flag in _WIDE)
    # arm has s8 x s8 kernels, x86 doesn't.
    return {
        "activations": "s8" if "asimd" in cpu_flags else "u8",
        "weights": "full" if wide else "paired",
        "ops": "fitting",
    }


def quantize(model: str, calibration: str, out: str, options: dict[str, str]) -> dict[str, Any]:
    """Write the int8 form of an fp32 ``.onnx``; its inputs and outputs stay float.

    Answers with the options that held, and how many operations are int8 and how many float, by type.

    Args:
        model: the fp32 ``.onnx``.
        calibration: a Samples file with real inputs.
        out: the ``.onnx`` to write, everything in one file.
        options: see the module; nothing may be missing.

    Raises:
        UsageError: a bad option, or samples that don't fit the model.
        Unsupported: already quantized, nothing to quantize, or over 2 GB.
        ConverterFailed: ONNX Runtime's quantizer raised an error.
    """
    options = checked("onnxruntime", options, OPTIONS)
    asked = f"int8 for onnxruntime of {Path(model).name}"
    try:
        import onnx
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        raise MissingPart(asked, str(error), "pip install onnx onnxruntime") from error
    source = onnx.load(model)
    _refuse(source, asked)
    feeds = _feeds(calibration, [node.name for node in source.graph.input], source, asked)
    ops = _ops(source, options["ops"])
    with tempfile.TemporaryDirectory(prefix="int8.") as folder:
        try:
            made = _quantized(source, feeds, options, ops, Path(folder))
        except Exception as error:
            raise failed(asked, error) from error
    _free_outputs(made)
    strip(made)
    _drop_unused_opsets(made)
    int8, other = _count(made)
    if not sum(int8.values()):
        raise Unsupported(asked, "no operation with constant weights was quantized", "export fp32 instead")
    onnx.save(made, f"{out}.part")
    os.replace(f"{out}.part", out)
    return {**options, "ops": ops, "samples": len(feeds), "quantized": dict(int8), "float": dict(other)}


def pair_scales(rows: ndarray) -> ndarray:
    """One scale a row: the least at which no two neighbouring int8 weights overflow a 16-bit pair of products.

    255 * (q[k] + q[k+1]) must stay within ±32767, so a same-signed pair may add up to 128; rounding takes one.

    Args:
        rows: float weights (outputs, inputs), inputs in the order in which the kernel multiplies them.
    """
    import numpy as np

    scales: ndarray = np.abs(rows).max(axis=1) / 127
    if rows.shape[1] > 1:
        scales = np.maximum(scales, np.abs(rows[:, :-1] + rows[:, 1:]).max(axis=1) / 127)
    floor: ndarray = np.maximum(scales, 1e-12).astype(np.float32)  # a row of zeros
    return floor


def _refuse(model: onnx.ModelProto, asked: str) -> None:
    if any(node.op_type in ("QuantizeLinear", "QLinearConv", "MatMulInteger") for node in model.graph.node):
        raise Unsupported(asked, "the model is quantized already", "start from the fp32 model")
    if model.ByteSize() > 2**31 - 2**20:
        raise Unsupported(asked, f"{model.ByteSize() / 1e9:.1f} GB; its quantizer stops at 2 GB", "export fp32")


def _feeds(calibration: str, names: Sequence[str], model: onnx.ModelProto, asked: str) -> list[dict[str, ndarray]]:
    feeds = samples.load(calibration)
    constants = {tensor.name for tensor in model.graph.initializer}
    wanted = sorted(set(names) - constants)
    if not feeds:
        raise UsageError(asked, "no calibration samples", "give real inputs; random ones are never used")
    for index, feed in enumerate(feeds):
        if sorted(feed) != wanted:
            raise UsageError(asked, f"sample {index} has inputs {sorted(feed)}", f"the model has {wanted}")
    return feeds


def _ops(model: onnx.ModelProto, ops: str) -> str:
    if ops != "fitting":
        return ops
    softmaxes = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
    attends = any(node.op_type == "MatMul" and softmaxes & set(node.input) for node in model.graph.node)
    named = any(node.op_type in _ATTENTION for node in model.graph.node)
    return "linear" if attends or named else "all"


def _quantized(
    source: onnx.ModelProto, feeds: Sequence[dict[str, ndarray]], options: Mapping[str, str], ops: str, folder: Path
) -> onnx.ModelProto:
    import onnx
    import onnxruntime.quantization as ort

    class Reader(ort.CalibrationDataReader):
        """Hands out the samples, once."""

        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, ndarray]] = iter(feeds)

        def get_next(self) -> dict[str, ndarray] | None:
            return next(self.feeds, None)

    model = _prepared(source, folder)
    made = folder / "int8.onnx"
    extra = {"TensorQuantOverrides": _overrides(model)} if options["weights"] == "paired" else {}
    ort.quantize_static(
        model,
        made,
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        op_types_to_quantize=[*_LINEAR, *_FUSED] if ops == "linear" else None,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8 if options["activations"] == "u8" else ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        calibrate_method=ort.CalibrationMethod.MinMax,
        extra_options=extra,
    )
    return onnx.load(made)


def _prepared(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Folded (MatMul + Add becomes Gemm) and with shapes: a tensor without one is not quantized."""
    import onnx
    import onnx.version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET:
        model = onnx.version_converter.convert_version(model, _MIN_OPSET)
    # By path: given a model, it moves the weights out of it and then looks for them on disk.
    onnx.save(model, folder / "source.onnx")
    # Symbolic shape inference needs sympy and found nothing more on the models tried.
    quant_pre_process(folder / "source.onnx", folder / "prepared.onnx", skip_symbolic_shape=True)
    return onnx.load(folder / "prepared.onnx")


def _overrides(model: onnx.ModelProto) -> dict[str, list[dict[str, Any]]]:
    from onnx.numpy_helper import to_array

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[dict[str, Any]]] = {}
    for node in model.graph.node:
        if len(node.input) > 1 and node.input[1] in constants and node.input[1] not in found:
            rows = _rows(node, to_array(constants[node.input[1]]))
            if rows is not None:
                found[node.input[1]] = _channels(*rows)
    return found


def _rows(node: onnx.NodeProto, weights: ndarray) -> tuple[ndarray, int] | None:
    """The weights as (outputs, inputs), inputs in the kernel's order, and the axis of the outputs in the tensor."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv" and weights.ndim > 2:
        if weights.shape[1] == 1 and attributes.get("group", 1) > 1:
            return None  # depthwise kernels widen each product: pairing these rows too gained nothing
        channels_last = weights.transpose(0, *range(2, weights.ndim), 1)
        return channels_last.reshape(weights.shape[0], -1), 0
    if node.op_type in ("Gemm", "MatMul") and weights.ndim == 2:
        outputs_first = bool(attributes.get("transB", 0))
        return (weights, 0) if outputs_first else (weights.T, 1)
    return None


def _channels(rows: ndarray, axis: int) -> list[dict[str, Any]]:
    import numpy as np
    from onnxruntime.quantization import QuantType

    made: list[dict[str, Any]] = []
    for scale in pair_scales(rows):
        # Anything but float32 makes the quantizer fail on a type mismatch later.
        low, high = np.float32(-127 * scale), np.float32(127 * scale)
        made.append({"quant_type": QuantType.QInt8, "symmetric": True, "rmin": low, "rmax": high})
    made[0]["axis"] = axis
    return made


def _free_outputs(model: onnx.ModelProto) -> None:
    """Leave the last layer's sums in float: rounding the answer to 256 levels gains no time."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for output in graph.output:
        restore = makers.get(output.name)
        if restore is None or restore.op_type != "DequantizeLinear" or readers[output.name]:
            continue
        rounding = makers.get(restore.input[0])
        if rounding is None or rounding.op_type != "QuantizeLinear" or readers[restore.input[0]] > 1:
            continue
        maker = makers.get(rounding.input[0])
        if maker is None or readers[rounding.input[0]] > 1:
            continue
        maker.output[list(maker.output).index(rounding.input[0])] = output.name
        graph.node.remove(restore)
        graph.node.remove(rounding)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    domains = {node.domain for node in model.graph.node} | {"", "ai.onnx"}
    if not model.functions:
        for entry in [entry for entry in model.opset_import if entry.domain not in domains]:
            model.opset_import.remove(entry)


def _count(model: onnx.ModelProto) -> tuple[Counter[str], Counter[str]]:
    """Operations between int8 and int8 (a layer with weights may end in float), and the others, by type."""
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    int8: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in _LINEAR:
            (int8 if set(node.input[:2]) <= restored else other)[node.op_type] += 1
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            (int8 if node.input[0] in restored and node.output[0] in rounded else other)[node.op_type] += 1
    return int8, other
