"""The deployment runtimes, found by name; one file each.

Third parties add theirs with an entry point in the group ``seatrial.targets``: ``name = "module:Class"``.
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib import metadata
from pathlib import Path

from ..core.errors import MissingPart, UsageError
from .base import Missing, Session, Settings, Target

__all__ = ["Missing", "Session", "Settings", "Target", "get", "names", "require"]

_OURS = {
    "onnxruntime": "seatrial.targets.onnxruntime:OnnxRuntime",
    "openvino": "seatrial.targets.openvino:OpenVino",
    "tflite": "seatrial.targets.tflite:TfLite",
    "tflite-runtime": "seatrial.targets.tflite_runtime:TfLiteRuntime",
}


@cache
def _table() -> dict[str, str]:
    return _OURS | {point.name: point.value for point in metadata.entry_points(group="seatrial.targets")}


def names() -> list[str]:
    """The names of all known targets, installed here or not."""
    return list(_table())


@cache
def get(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: there is no such target; the nearest names are suggested.
    """
    if name not in _table():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"target {name!r}", "no such target", f"{hint}known: {', '.join(names())}")
    module, _, cls = _table()[name].partition(":")
    target: Target = getattr(importlib.import_module(module), cls)()
    return target


def require(name: str) -> Target:
    """Like `get`, and usable here.

    Raises:
        MissingPart: it is known but not installed; the error gives the command.
    """
    target = get(name)
    missing = target.probe()
    if missing:
        raise MissingPart(f"target {name!r}", missing.what, missing.todo)
    return target


def interpreter(name: str, settings: Settings) -> Path | None:
    """The interpreter to open an artifact in with these settings: None for this one, else its environment's.

    This one, too, where it can't be opened anywhere: `require` says why.
    """
    # Most targets know this interpreter only, and have no such method.
    ask = getattr(get(name), "interpreter", None) if name in _table() else None
    found: Path | None = ask(settings) if ask else None
    return found


def for_file(suffix: str) -> Target:
    """The target that loads files with this suffix, such as ``.onnx``.

    Raises:
        UsageError: no target loads such a file.
    """
    by_suffix = {get(name).suffix: name for name in reversed(names())}
    if suffix not in by_suffix:
        raise UsageError(f"a model file {suffix!r}", "no target loads it", f"known: {', '.join(by_suffix)}")
    return get(by_suffix[suffix])
