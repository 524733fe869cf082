"""fp16: half the file, weights in 16 bits; inputs and outputs stay as they are.

What a CPU computes with is the runtime's choice: those of x86-64 widen the weights and run fp32, which the proof's
placement tells ("fp32 ran"). A GPU, an NPU or an ARM core with fp16 arithmetic runs it as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import Unsupported
from .options import failed

MAKERS = {
    "onnxruntime": "seatrial.exporter.quantize.fp16:onnxruntime",
    "openvino": "seatrial.exporter.quantize.fp16:openvino",
    "tflite": "seatrial.exporter.quantize.fp16:tflite",
    "tflite-runtime": "seatrial.exporter.quantize.fp16:tflite",
}


def maker(target: str) -> str:
    """The function that halves an artifact of this target, as ``module:name``.

    Raises:
        Unsupported: there is none.
    """
    if target not in MAKERS:
        raise Unsupported(f"fp16 for {target}", "it has no converter here", f"known: {', '.join(MAKERS)}")
    return MAKERS[target]


def onnxruntime(model: str, out: str) -> dict[str, Any]:
    """An ONNX graph in fp16, by ONNX Runtime's own converter; what must stay fp32 gets casts."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from ..onnx_text import store

    try:
        half = convert_float_to_float16(onnx.load(model), keep_io_types=True)
    except Exception as error:
        raise failed(f"fp16 for onnxruntime of {Path(model).name}", error) from error
    store(half, Path(out))
    return {}


def openvino(model: str, out: str) -> dict[str, Any]:
    """IR whose weights are stored in fp16, with a note to the plugin where to widen them."""
    import openvino as ov

    ov.save_model(ov.Core().read_model(model), out, compress_to_fp16=True)
    return {}


def tflite(model: str, out: str) -> dict[str, Any]:
    """A TFLite file whose weights are stored in fp16, by ai-edge-quantizer; each has a DEQUANTIZE before its use."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
        TFLOperationName,
    )

    asked = f"fp16 for tflite of {Path(model).name}"
    config = OpQuantizationConfig(
        weight_tensor_config=TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT),
        compute_precision=ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    try:
        tool = quantizer.Quantizer(model)
        for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED", "EMBEDDING_LOOKUP"):
            tool.update_quantization_recipe(
                ".*",
                TFLOperationName(name),
                op_config=config,
                algorithm_key=AlgorithmName.FLOAT_CASTING,
            )
        made = bytes(tool.quantize().quantized_model)
    except Exception as error:
        raise failed(asked, error) from error
    if len(made) > 0.95 * Path(model).stat().st_size:
        raise Unsupported(asked, "no weight was found that could be halved", "export fp32 instead")
    Path(out).write_bytes(made)
    return {}
