"""torch → TFLite by litert-torch on the captured program. Runs in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..program import names


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a ``.pt2`` into a TFLite file whose signature has the program's names.

    The libraries take seconds to import: that is done first, while another process may still be capturing `source`;
    whoever started us ends us when there will be none.
    """
    import litert_torch
    import torch

    while not Path(program).exists():  # written after `source`
        time.sleep(0.02)
    inputs, outputs = names(program)
    exported = torch.export.load(source)
    inner = exported.module()

    class Named(torch.nn.Module):
        """Names survive as keywords and dict keys; positions don't (the converter sorts them)."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, **tensors: Any) -> dict[str, Any]:
            answers = self.inner(*(tensors[name] for name in inputs))
            return dict(zip(outputs, answers, strict=True))

    examples = dict(zip(inputs, exported.example_inputs[0], strict=True))
    litert_torch.convert(Named(), sample_kwargs=examples).export(out)
    return {}
