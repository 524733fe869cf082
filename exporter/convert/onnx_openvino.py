"""ONNX → OpenVINO IR. Runs in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert an ONNX file into IR in fp32 (`save_model` would compress weights to fp16 by itself)."""
    import openvino as ov

    model = ov.convert_model(source)
    save(model, Path(out))
    return {}


def save(model: Any, out: Path) -> None:
    """Write IR that tells nothing of the folder it was made in."""
    import openvino as ov

    ov.save_model(model, str(out), compress_to_fp16=False)
