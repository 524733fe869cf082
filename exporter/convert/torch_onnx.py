"""torch → ONNX by torch's own exporter on the captured program. Runs in the torch process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..onnx_text import store
from ..program import names
from ..sources.torch_model import captured


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a ``.pt2`` into an ONNX file, and write ``names.json`` (node → module path) beside it."""
    import torch

    inputs, outputs = names(program)
    exported = torch.onnx.export(captured(source), dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    model = exported.model_proto
    (Path(out).parent / "names.json").write_text(json.dumps(_module_paths(model), indent=1, sort_keys=True))
    store(model, Path(out))
    return {"opset": max(o.version for o in model.opset_import if not o.domain)}


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
