"""torch → OpenVINO IR by OpenVINO's own reader of exported programs. Runs in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..program import names
from . import torch_operators
from .onnx_openvino import save


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a ``.pt2`` into IR in fp32, with the program's names."""
    import openvino as ov
    import torch

    inputs, outputs = names(program)
    model = ov.convert_model(torch.export.load(source))
    for ports, wanted in ((model.inputs, inputs), (model.outputs, outputs)):
        for port, name in zip(ports, wanted, strict=True):
            port.get_tensor().set_names({name})
    for parameter, name in zip(model.get_parameters(), inputs, strict=True):
        parameter.set_friendly_name(name)
    save(model, Path(out))
    return {}


def gaps(source: str, program: str) -> list[str]:
    """Operators that only the model's own code defines; OpenVINO doesn't tell which of torch's it knows."""
    return torch_operators.unknown(source, lambda operator: True, "OpenVINO")
