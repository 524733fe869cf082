"""ONNX files without what exporters write of their makers' machines: paths, source lines, doc strings."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def store(model: Any, path: Path) -> None:
    """Write a model without its texts."""
    import onnx

    strip(model)
    limit = 1_800_000_000  # protobuf ends at 2 GiB
    if model.ByteSize() > limit:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def strip(model: Any) -> None:
    """Clear every doc string and every metadata entry of a model and everything in it."""
    todo: list[Any] = [model]
    while todo:
        message = todo.pop()
        names = {field.name for field in message.DESCRIPTOR.fields}
        for name in {"doc_string", "metadata_props"} & names:
            message.ClearField(name)
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                # upb's repeated fields are no lists; a message has a DESCRIPTOR, they don't.
                todo += [value] if hasattr(value, "DESCRIPTOR") else list(value)
