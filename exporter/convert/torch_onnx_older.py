"""torch → ONNX by torch's older exporter, which traces. Runs in the torch process, on the module itself."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.specs import TensorSpec
from ..onnx_text import store
from ..program import Program
from ..sources.torch_model import original
from . import torch_operators

OPSET = 18
TORCH_ONLY = ("aten", "prim", "prims")


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Trace the module behind a ``.pt2`` that this process captured into an ONNX file."""
    read = Program.load(Path(program).parent)
    module, tensors = original(source)
    store(trace(module, tensors, read.inputs, read.outputs), Path(out))
    return {"opset": OPSET}


def gaps(source: str, program: str) -> list[str]:
    """Operators of others than torch without a symbolic function; torch's own are traced under other names."""
    from torch.onnx._internal.torchscript_exporter.registration import registry

    def knows(operator: Any) -> bool:
        return operator.namespace in TORCH_ONLY or registry.is_registered_op(operator._schema.name, OPSET)

    return torch_operators.unknown(source, knows, "torch's older ONNX exporter")


def trace(module: Any, tensors: Sequence[Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Any:
    """The ONNX model of a flat module; a branch on a value is frozen, which the proof finds out."""
    import onnx
    import torch

    axes = {
        spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for spec in (*inputs, *outputs)
        if spec.is_free
    }
    file = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(tensors),
            file,
            dynamo=False,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    return onnx.load_from_string(file.getvalue())
