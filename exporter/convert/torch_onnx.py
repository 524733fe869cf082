"""torch → ONNX by torch's own exporter on the captured program. Runs in the torch process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..onnx_text import store
from ..program import names
from ..sources.torch_model import captured
from . import torch_operators

WHO = "torch's ONNX exporter"


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a ``.pt2`` into an ONNX file, and write ``names.json`` (node → module path) beside it."""
    import torch

    inputs, outputs = names(program)
    exporting = captured(source)
    with torch_operators.telling("the conversion torch → onnx", WHO):
        exported = torch.onnx.export(exporting, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    model = exported.model_proto
    (Path(out).parent / "names.json").write_text(json.dumps(_module_paths(model), indent=1, sort_keys=True))
    store(model, Path(out))
    return {"opset": max(o.version for o in model.opset_import if not o.domain)}


def gaps(source: str, program: str) -> list[str]:
    """Operators without an ONNX function, by the registries of onnxscript and torch."""
    from onnxscript.function_libs.torch_lib import ops, registration
    from torch.onnx._internal.exporter._torchlib._torchlib_registry import get_torchlib_ops

    del ops  # its import fills the registry
    known = set(registration.default_registry)
    known |= {meta.fx_target.name() for meta in get_torchlib_ops() if hasattr(meta.fx_target, "_schema")}
    return torch_operators.unknown(source, lambda operator: operator.name() in known, WHO)


def _module_paths(model: Any) -> dict[str, str]:
    """Node name → path of the module in the user's model, from the exporter's metadata."""
    import ast

    paths = {}
    for node in model.graph.node:
        scopes = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        if scopes:
            modules = ast.literal_eval(scopes[0])[:-1]
            paths[node.name] = (modules[-1] if modules else "").removeprefix("model").lstrip(".")
    return paths
