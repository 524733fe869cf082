"""Static int8 for LiteRT (TFLite): ai-edge-quantizer, with true min-max ranges.

Options, required by `quantize` (`resolve` fills them in):

``ops``
    ``all``: every operation that ai-edge-quantizer knows.
    ``linear``: convolutions and fully connected layers alone; products of two activations stay float, whose
    int8 kernel took twice fp32's time on ViT-Tiny.
    ``fitting``: ``linear`` for a graph with layer normalisation or attention, otherwise ``all``
    (ViT-Tiny: 28 dB and 1.04 of fp32's time, instead of 18 dB and 2.3).

XNNPACK widens each product, so there is no option for the CPU. The quantizer's own `calibrate` is a moving average of
ranges, 3 points of agreement worse; `OCTAV` weights gain 0.3 dB, lose agreement, and fail on a ViT.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import samples
from ...core.errors import MissingPart, Unsupported, UsageError
from .options import checked, failed

if TYPE_CHECKING:
    from numpy import ndarray

OPTIONS: dict[str, tuple[str, ...]] = {"ops": ("fitting", "all", "linear")}

_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")
# A layer normalisation arrives in parts: the squared difference is the telling one.
_ATTENTION = ("BATCH_MATMUL", "SQUARED_DIFFERENCE", "STABLEHLO_COMPOSITE")


def resolve(cpu_flags: Sequence[str]) -> dict[str, str]:
    """Every option, decided for a CPU with these flags; none of them depends on it so far."""
    return {"ops": "fitting"}


def quantize(model: str, calibration: str, out: str, options: dict[str, str]) -> dict[str, Any]:
    """Write the int8 form of an fp32 ``.tflite``; its inputs and outputs stay float.

    Answers with the options that held, and how many operations are int8 and how many float, by type.

    Args:
        model: the fp32 ``.tflite``, with one signature.
        calibration: a Samples file with real inputs, under the signature's names.
        out: the ``.tflite`` to write.
        options: see the module; nothing may be missing.

    Raises:
        UsageError: a bad option, or samples that don't fit the model.
        Unsupported: already quantized, nothing to quantize, or not exactly one signature.
        ConverterFailed: ai-edge-quantizer raised an error.
    """
    options = checked("tflite", options, OPTIONS)
    asked = f"int8 for tflite of {Path(model).name}"
    try:
        import ai_edge_quantizer  # noqa: F401
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingPart(asked, str(error), "pip install ai-edge-litert ai-edge-quantizer") from error
    signatures = Interpreter(model, num_threads=1).get_signature_list()
    if len(signatures) != 1:
        raise Unsupported(asked, f"{len(signatures)} signatures, one is needed", "convert it with one signature")
    [(signature, ports)] = signatures.items()
    int8, other = _count(model)
    if sum(int8.values()):
        raise Unsupported(asked, "the model is quantized already", "start from the fp32 model")
    feeds = _feeds(calibration, ports["inputs"], asked)
    ops = _ops(other, options["ops"])
    try:
        made = _quantized(model, signature, feeds, ops)
    except Exception as error:
        raise failed(asked, error) from error
    int8, other = _written(made, out, asked)
    return {**options, "ops": ops, "samples": len(feeds), "quantized": dict(int8), "float": dict(other)}


def _written(made: bytes, out: str, asked: str) -> tuple[Counter[str], Counter[str]]:
    """Write it if it holds int8 at all; the counts of `_count`."""
    part = Path(f"{out}.part")
    part.write_bytes(made)
    int8, other = _count(str(part))
    if not sum(int8.values()):
        part.unlink()
        raise Unsupported(asked, "no operation was quantized", "export fp32 instead")
    os.replace(part, out)
    return int8, other


def _feeds(calibration: str, names: Sequence[str], asked: str) -> list[dict[str, ndarray]]:
    feeds = samples.load(calibration)
    if not feeds:
        raise UsageError(asked, "no calibration samples", "give real inputs; random ones are never used")
    for index, feed in enumerate(feeds):
        if sorted(feed) != sorted(names):
            raise UsageError(asked, f"sample {index} has inputs {sorted(feed)}", f"the model has {sorted(names)}")
    return feeds


def _ops(kinds: Mapping[str, int], ops: str) -> str:
    if ops != "fitting":
        return ops
    return "linear" if any(kind in kinds for kind in _ATTENTION) else "all"


def _quantized(model: str, signature: str, feeds: Sequence[dict[str, ndarray]], ops: str) -> bytes:
    from ai_edge_quantizer import calibrator, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.utils import qsv_utils

    # Its bars go to standard error, and no option turns off the one of the calibration.
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        tool = quantizer.Quantizer(model)
        for name in ("*",) if ops == "all" else _LINEAR:
            tool.add_static_config(".*", TFLOperationName(name), activation_num_bits=8, weight_num_bits=8)
        for name in ("INPUT", "OUTPUT"):
            tool.update_quantization_recipe(".*", TFLOperationName(name), algorithm_key=AlgorithmName.NO_QUANTIZE)
        ranges = calibrator.Calibrator(
            model,
            num_threads=1,
            mode=calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
            qsv_update_func=qsv_utils.min_max_update,
        )
        # The public calibrate() takes no update function, and the calibrator asks for the private recipe.
        ranges.calibrate({signature: list(feeds)}, tool._recipe_manager)
        made = tool.quantize(ranges.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
        return bytes(made.quantized_model)


def _count(model: str) -> tuple[Counter[str], Counter[str]]:
    """Operations whose first input is int8, and the others, by type; casts between the two are left out."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without the default delegate, which would show as one operation.
    interpreter = Interpreter(
        model, num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    dtypes = {tensor["index"]: tensor["dtype"].__name__ for tensor in interpreter.get_tensor_details()}
    int8: Counter[str] = Counter()
    other: Counter[str] = Counter()
    for op in interpreter._get_ops_details():
        if op["op_name"] not in ("QUANTIZE", "DEQUANTIZE"):
            first = next((index for index in op["inputs"] if index >= 0), -1)
            (int8 if dtypes.get(first) == "int8" else other)[op["op_name"]] += 1
    return int8, other
