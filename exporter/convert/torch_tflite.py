"""torch → TFLite by litert-torch on the captured program. Runs in a process of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ..program import names
from . import torch_operators

WHO = "litert-torch"


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a ``.pt2`` into a TFLite file whose signature has the program's names, and write ``names.json``.

    That holds tensor → module path: tensors are called after the modules that make them.
    """
    import litert_torch
    import torch

    _wait(program)
    inputs, outputs = names(program)
    exported = torch.export.load(source)
    inner = exported.module()
    paths = torch_operators.leave_paths_alone(inner.graph)

    class Named(torch.nn.Module):
        """Names survive as keywords and dict keys; positions don't (the converter sorts them)."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, **tensors: Any) -> dict[str, Any]:
            # The converter captures once more; a plain call would lose what was written to the nodes.
            with torch.fx.traceback.preserve_node_meta():
                answers = torch.fx.Interpreter(self.inner).run(*(tensors[name] for name in inputs))
            return dict(zip(outputs, answers, strict=True))

    # Its name stands in those tensors that belong to no node.
    Named.__module__, Named.__qualname__ = "builtins", "model"

    examples = dict(zip(inputs, exported.example_inputs[0], strict=True))
    with torch_operators.telling("the conversion torch → tflite", WHO, exported.graph):
        litert_torch.convert(Named(), sample_kwargs=examples).export(out)
    (Path(out).parent / "names.json").write_text(json.dumps(_names(out, paths), indent=1, sort_keys=True))
    return {}


def _names(tflite: str, paths: set[str]) -> dict[str, str]:
    """Tensor → module path, of what was fused that of the operator that ends it."""
    from ai_edge_litert.interpreter import Interpreter

    tensors = [str(tensor["name"]) for tensor in Interpreter(tflite).get_tensor_details()]
    return {name: path for name in tensors if (path := name.partition(";")[0]) in paths}


def gaps(source: str, program: str) -> list[str]:
    """Operators without a lowering, by litert-torch's registry.

    The libraries take seconds to import: that is done first, while another process may still be capturing `source`;
    whoever started us ends us when there will be none.
    """
    from litert_torch.backend import lowerings
    from litert_torch.fx_infra import decomp

    if program:
        _wait(program)
    tables = decomp.pre_convert_decomp(), decomp.pre_lower_decomp()

    def knows(operator: Any) -> bool:
        return lowerings.lookup(operator) is not None or any(operator in table for table in tables)

    return torch_operators.unknown(source, knows, WHO)


def _wait(program: str) -> None:
    """Until the program is there, which is written after its source."""
    while not Path(program).exists():
        time.sleep(0.02)
