"""What the user has: a file of a known kind, with what is needed to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import UsageError
from ...core.paths import check_readable

_KINDS = {".py": "torch", ".onnx": "onnx"}
_CHECKPOINTS = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}


@dataclass(frozen=True)
class Source:
    """A model and how to read it.

    Attributes:
        path: the user's file.
        kind: ``torch`` for a ``.py``, or ``onnx``.
        args: texts for the parameters of ``get_model``.
        inputs: an ``.npz`` with an example of each input.
        shapes: the shape to try, by input.
        ranges: low and high (exclusive), by integer input.
    """

    path: Path
    kind: str
    args: Mapping[str, str] = field(default_factory=dict)
    inputs: Path | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it: the file's stem, or its folder's name where the file is just called ``model``."""
        return self.path.stem if self.path.stem != "model" else self.path.resolve().parent.name


def detect(
    model: Path | str,
    args: Mapping[str, str] | None = None,
    inputs: Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[int]] | None = None,
) -> Source:
    """Name the kind of a user's file.

    Raises:
        UsageError: it is missing, of a kind that can't be read, or options don't fit the kind.
    """
    path = Path(model)
    asked = f"the model {model}"
    if path.suffix in _CHECKPOINTS:
        found = "a checkpoint: weights without the code that uses them"
        raise UsageError(
            asked, found, f"write the code with `seatrial init --checkpoint {path.name}`, then export that"
        )
    check_readable(path, asked)
    if path.suffix not in _KINDS or not path.is_file():
        found = "a folder" if path.is_dir() else f"a file {path.suffix or 'without a suffix'}"
        raise UsageError(asked, found, f"known kinds: {', '.join(_KINDS)}")
    if path.stat().st_size == 0:
        raise UsageError(asked, "the file is empty", "download or export it again")
    kind = _KINDS[path.suffix]
    if kind != "torch" and args:
        found = f"{path.name} has no get_model() to give it to"
        raise UsageError(f"--arg {next(iter(args))}=...", found, "leave it away; only a .py takes it")
    if kind != "onnx" and (inputs or shapes or ranges):
        todo = "let get_args() give the example inputs"
        raise UsageError("--inputs, --shape or --range", f"they are for an .onnx; {path.name} has get_args()", todo)
    if inputs:
        check_readable(inputs, f"--inputs {inputs}")
    for name, shape in (shapes or {}).items():
        if any(size < 1 for size in shape):
            raise UsageError(f"--shape {name}={','.join(map(str, shape))}", "a size below 1", "give sizes from 1 up")
    return Source(path, kind, dict(args or {}), inputs, dict(shapes or {}), dict(ranges or {}))
