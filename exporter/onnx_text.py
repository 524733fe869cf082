"""ONNX files: read with one clear error, and written without what tells of their makers' machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import MissingPart, UsageError


def read(path: Path) -> Any:
    """The model in a file, without its external data.

    Raises:
        MissingPart: onnx is not installed.
        UsageError: truncated, or not ONNX.
    """
    asked = f"the model {path}"
    try:
        import onnx
    except ImportError:
        raise MissingPart(asked, "onnx is missing", 'pip install "seatrial[onnxruntime]"') from None
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        found = f"it is not a whole ONNX file: {str(error).splitlines()[0]}"
        raise UsageError(asked, found, "check the file's size, and download or export it again") from error
    if not model.graph.node or not model.graph.output:
        raise UsageError(asked, "it is not an ONNX model, or holds no graph", "check the file; export it again")
    return model


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
