"""Converters and a quantizer that are wrong on purpose; children find this folder on PYTHONPATH."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from seatrial.exporter.convert import onnx_openvino, torch_onnx, torch_tflite
from seatrial.exporter.sources import torch_model


def swap(source: str, out: str, program: str) -> dict[str, Any]:
    """Two outputs of the same shape change places."""
    import onnx

    torch_onnx.convert(source, out, program)
    model = onnx.load(out)
    one, other = (output.name for output in model.graph.output)
    for node in model.graph.node:
        names = {one: other, other: one}
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(model, out)
    return {}


def drop_bias(source: str, out: str, program: str) -> dict[str, Any]:
    """The last bias becomes zero on the way from ONNX to OpenVINO."""
    import numpy as np
    import onnx

    model = onnx.load(source)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    bias = [tensor for tensor in floats if len(tensor.dims) == 1][-1]
    zeros = np.zeros_like(onnx.numpy_helper.to_array(bias))
    bias.CopyFrom(onnx.numpy_helper.from_array(zeros, bias.name))
    wrong = str(Path(out).with_name("wrong.onnx"))
    onnx.save(model, wrong)
    answer = onnx_openvino.convert(wrong, out, program)
    Path(wrong).unlink()
    return answer


def nudge(source: str, out: str, program: str) -> dict[str, Any]:
    """The last bias is 1 % off: far above fp32's rounding, and far below bf16's."""
    import onnx

    torch_onnx.convert(source, out, program)
    model = onnx.load(out)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    bias = [tensor for tensor in floats if len(tensor.dims) == 1][-1]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * 1.01, bias.name))
    onnx.save(model, out)
    return {}


def zeros(source: str, out: str, program: str) -> dict[str, Any]:
    """All outputs are zeros in the TFLite file."""
    import torch

    while not Path(program).exists():  # like the real one, it is started before the capture has ended
        time.sleep(0.02)
    exported = torch.export.load(source)
    inner = exported.module()

    class Zeros(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return tuple(value * 0 for value in inner(x))

    silent = torch.export.export(Zeros(), exported.example_inputs[0])
    torch.export.save(silent, f"{out}.pt2")
    answer = torch_tflite.convert(f"{out}.pt2", out, program)
    Path(f"{out}.pt2").unlink()
    return answer


def abort(source: str, out: str, program: str) -> dict[str, Any]:
    """The C++ of a converter gives up, and takes the process with it, where a model was captured."""
    if torch_model._captured:
        Path(out).write_text("half")
        os.abort()
    return torch_onnx.convert(source, out, program)


def nothing(source: str, out: str, program: str) -> dict[str, Any]:
    """It reports success and writes no file."""
    return {}


def quantize(model: str, calibration: str, out: str, options: dict[str, Any]) -> dict[str, Any]:
    """Quantized, with the weights of the first layer tripled."""
    import onnx
    from seatrial.exporter.quantize import onnxruntime

    answer = onnxruntime.quantize(model, calibration, out, options)
    quantized = onnx.load(out)
    for tensor in quantized.graph.initializer:
        if tensor.name.endswith("_scale") and "weight" in tensor.name:
            array = onnx.numpy_helper.to_array(tensor) * 3
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
            break
    onnx.save(quantized, out)
    return answer
