"""Static int8 for OpenVINO: NNCF on the IR, with true min-max ranges and one scale a tensor between layers.

Options, all required by `quantize` (`resolve` fills them in for a CPU):

``weights``
    ``full``: int8 weights use all of -127..127. Needs VNNI, or arm's instructions.
    ``half``: 7 bits, because x86 before VNNI saturates sums of two products (EfficientNet-Lite0 on AVX2:
    16.6 dB, against 8.4 dB with ``full`` and 11.8 dB with NNCF's own default, 7 bits in the first layer alone).
``ops``
    ``all``: every operation that NNCF quantizes.
    ``linear``: convolutions and matrix products alone.
    ``fitting``: ``linear`` for a graph with layer normalisation or attention, otherwise ``all``
    (ViT-Tiny: 25 dB instead of 20 dB at the same speed; NNCF's model type "transformer" gives 16 dB).

NNCF's defaults give 8.5 dB on Lite0 here: averaged ranges, one scale a channel on depthwise inputs.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import samples
from ...core.errors import MissingPart, Unsupported, UsageError
from .options import checked, failed

if TYPE_CHECKING:
    from numpy import ndarray

OPTIONS: dict[str, tuple[str, ...]] = {
    "weights": ("full", "half"),
    "ops": ("fitting", "all", "linear"),
}

# Where 8-bit products are summed in 32 bits: VNNI in its three forms; arm's NEON ("asimd"), from its manual, untried.
_WIDE = ("avx512_vnni", "avx_vnni", "amx_int8", "asimd")
_LINEAR = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
)
_ATTENTION = ("MVN", "ScaledDotProductAttention", "RMS")
# What only moves values: int8 passes through.
_MOVING = (
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "StridedSlice",
    "Split",
    "Gather",
    "Concat",
    "MaxPool",
)
_SKIPPED = ("Parameter", "Result", "Constant", "Convert", "FakeQuantize")


def resolve(cpu_flags: Sequence[str]) -> dict[str, str]:
    """Every option, decided for a CPU with these flags."""
    wide = any(flag in cpu_flags for flag in _WIDE)
    return {"weights": "full" if wide else "half", "ops": "fitting"}


def quantize(model: str, calibration: str, out: str, options: dict[str, str]) -> dict[str, Any]:
    """Write the int8 form of an fp32 IR; its inputs and outputs stay float.

    Answers with the options that held, and how many operations are int8 and how many float, by type.

    Args:
        model: the fp32 ``.xml``, its ``.bin`` beside it.
        calibration: a Samples file with real inputs.
        out: the ``.xml`` to write; a ``.bin`` appears beside it.
        options: see the module; nothing may be missing.

    Raises:
        UsageError: a bad option, or samples that don't fit the model.
        Unsupported: already quantized, or nothing to quantize.
        ConverterFailed: NNCF raised an error.
    """
    options = checked("openvino", options, OPTIONS)
    asked = f"int8 for openvino of {Path(model).name}"
    try:
        import nncf  # noqa: F401
        import openvino as ov
    except ImportError as error:
        raise MissingPart(asked, str(error), "pip install openvino nncf") from error
    source = ov.Core().read_model(model)
    if any(node.get_type_name() == "FakeQuantize" for node in source.get_ops()):
        raise Unsupported(asked, "the model is quantized already", "start from the fp32 model")
    feeds = _feeds(calibration, source, asked)
    ops = _ops(source, options["ops"])
    try:
        made = _quantized(source, feeds, options["weights"], ops)
    except Exception as error:
        raise failed(asked, error) from error
    int8, other = _count(made)
    if not sum(int8.values()):
        raise Unsupported(asked, "no convolution or matrix product to quantize", "export fp32 instead")
    _rename(made)
    ov.save_model(made, out, compress_to_fp16=False)
    return {**options, "ops": ops, "samples": len(feeds), "quantized": dict(int8), "float": dict(other)}


def _feeds(calibration: str, model: Any, asked: str) -> list[dict[str, ndarray]]:
    feeds = samples.load(calibration)
    if not feeds:
        raise UsageError(asked, "no calibration samples", "give real inputs; random ones are never used")
    known = [port.get_names() or {port.get_node().get_friendly_name()} for port in model.inputs]
    for index, feed in enumerate(feeds):
        if len(feed) != len(known) or not all(names & set(feed) for names in known):
            wanted = sorted(min(names) for names in known)
            raise UsageError(asked, f"sample {index} has inputs {sorted(feed)}", f"the model has {wanted}")
    return feeds


def _ops(model: Any, ops: str) -> str:
    if ops != "fitting":
        return ops
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind in _ATTENTION:
            return "linear"
        if kind == "Softmax" and any(
            reader.get_node().get_type_name() == "MatMul" for reader in node.output(0).get_target_inputs()
        ):
            return "linear"
    return "all"


def _quantized(model: Any, feeds: Sequence[dict[str, ndarray]], weights: str, ops: str) -> Any:
    with _silence():
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            OverflowFix,
            QuantizationParameters,
        )
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        kinds = {node.get_type_name() for node in model.get_ops()} - {*_LINEAR, *_SKIPPED, *_ATTENTION[1:2]}
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(types=sorted(kinds)) if ops == "linear" and kinds else None,
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
                activations_quantization_params=QuantizationParameters(per_channel=False),
                overflow_fix=OverflowFix.ENABLE if weights == "half" else OverflowFix.DISABLE,
            ),
        )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """NNCF draws progress bars on standard output and logs each step; a log of a failure should show the failure."""
    import logging

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield


def _rename(model: Any) -> None:
    """Number anew each operation that carries its type and a counter of the process: same inputs, same bytes."""
    nodes = model.get_ordered_ops()
    names = [node.get_friendly_name() for node in nodes]
    counted = [
        re.fullmatch(re.escape(node.get_type_name()) + r"_\d+", name) is not None
        for node, name in zip(nodes, names, strict=True)
    ]
    taken = {name for name, is_counted in zip(names, counted, strict=True) if not is_counted}
    number = 0
    for node, is_counted in zip(nodes, counted, strict=True):
        if is_counted:
            while (name := f"{node.get_type_name()}_{number}") in taken:
                number += 1
            node.set_friendly_name(name)
            number += 1


def _count(model: Any) -> tuple[Counter[str], Counter[str]]:
    """Convolutions and matrix products that read a FakeQuantize, and those that don't, by type."""
    int8: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind in _LINEAR:
            source = node.input_value(0).get_node()
            while source.get_type_name() in _MOVING:
                source = source.input_value(0).get_node()
            (int8 if source.get_type_name() == "FakeQuantize" else other)[kind] += 1
    return int8, other
