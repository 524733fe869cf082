"""What the user has: a file, a folder or a name of a known kind, with what is needed to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ...core.errors import UsageError
from ...core.ids import by_content, file_sha256
from ...core.paths import check_readable
from ..sizes import Size

_SUFFIXES = {
    ".py": "python",
    ".pt2": "pt2",
    ".onnx": "onnx",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".tflite": "tflite",
    ".xml": "openvino",
}
_CHECKPOINTS = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
_HERE = "seatrial.exporter.sources"


@dataclass(frozen=True)
class Kind:
    """How one kind of source is read.

    Attributes:
        reader: ``module:function`` that captures it.
        formats: formats that its routes may start from, the likeliest first.
        needs: modules without which it can't be read at all.
        extra: the extra of ours that brings them.
    """

    reader: str
    formats: tuple[str, ...]
    needs: tuple[str, ...]
    extra: str


KINDS = {
    "python": Kind(f"{_HERE}.python_file:capture", ("torch", "savedmodel", "onnx"), (), ""),
    "pt2": Kind(f"{_HERE}.pt2_file:capture", ("torch", "onnx"), ("torch",), "torch"),
    "timm": Kind(f"{_HERE}.timm_model:capture", ("torch", "onnx"), ("torch", "timm"), "timm"),
    "huggingface": Kind(f"{_HERE}.hf_folder:capture", ("torch", "onnx"), ("torch", "transformers"), "huggingface"),
    "onnx": Kind(f"{_HERE}.onnx_file:capture", ("onnx",), ("onnx", "onnxruntime"), "onnxruntime"),
    "keras": Kind(f"{_HERE}.keras_model:capture", ("savedmodel",), ("tensorflow",), "tensorflow"),
    "savedmodel": Kind(f"{_HERE}.saved_model:capture", ("savedmodel",), ("tensorflow",), "tensorflow"),
    "tflite": Kind(f"{_HERE}.runtime_file:capture", ("tflite",), (), "tflite"),
    "openvino": Kind(f"{_HERE}.runtime_file:capture", ("openvino",), ("openvino",), "openvino"),
}
TORCH = {"python", "pt2", "timm", "huggingface"}
"""Kinds whose capture may be a torch process, which converters of that family run in."""


@dataclass(frozen=True)
class Source:
    """A model and how to read it.

    Attributes:
        text: as the user named it.
        path: the file or folder; for ``timm:`` the architecture's name.
        kind: key of `KINDS`.
        args: texts for the parameters of ``get_model``, or options of the kind's reader.
        inputs: an ``.npz`` with an example of each input.
        shapes: the shape to try, by input.
        ranges: low and high (exclusive), by integer input.
        free: dimensions that stay free.
        fixed: dimensions that are set to one size.
        function: of a ``.py``, the one that makes the model.
        layout: ``nchw`` or ``nhwc`` for pictures; empty for the source's own.
        embed: whether preprocessing goes into the graph.
        detections: the outputs of a declared detector, see `proof.detections.read`.
    """

    text: str
    path: Path
    kind: str
    args: Mapping[str, str] = field(default_factory=dict)
    inputs: Path | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    free: tuple[Size, ...] = ()
    fixed: tuple[Size, ...] = ()
    function: str = "get_model"
    layout: str = ""
    embed: bool = False
    detections: Mapping[str, Any] = field(default_factory=dict)

    @property
    def how(self) -> Kind:
        """How it is read."""
        return KINDS[self.kind]

    @property
    def name(self) -> str:
        """What reports call it: the file's stem, which doesn't change with the folder that it lies in."""
        return self.path.name if self.kind in ("timm", "huggingface", "savedmodel") else self.path.stem

    @property
    def folder_name(self) -> str:
        """What outputs are called: the stem, or the folder's name where the file is just called ``model``."""
        return self.path.resolve().parent.name if self.name == "model" else self.name

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats that its routes may start from, the likeliest first."""
        keras = self.kind == "python" and b"keras" in self.path.read_bytes()
        return ("savedmodel", "torch", "onnx") if keras else self.how.formats

    @property
    def may_calibrate(self) -> bool:
        """Whether its own file may give calibration samples."""
        return self.kind == "python" and b"def get_calibration" in self.path.read_bytes()

    @property
    def files(self) -> list[Path]:
        """Every file that it is known to be made of."""
        if self.kind == "timm":
            return []
        return [self.path] if self.path.is_file() else sorted(p for p in self.path.rglob("*") if p.is_file())

    def identity(self) -> list[Any]:
        """What tells this source from another, as JSON data: names, options, and every file by its bytes."""
        inputs = file_sha256(self.inputs) if self.inputs else None
        asked = [{k: list(v) for k, v in given.items()} for given in (self.shapes, self.ranges)]
        sizes = [size.to_dict() for size in (*self.free, *self.fixed)]
        files = [file_sha256(file) for file in self.files]
        args = by_content(self.args)
        reading = [self.function, self.layout, self.embed, dict(self.detections)]
        return [self.kind, self.name, files, args, inputs, asked, sizes, *reading]


def detect(
    model: Path | str,
    args: Mapping[str, str] | None = None,
    inputs: Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[int]] | None = None,
    **more: Any,
) -> Source:
    """Name the kind of what a user has.

    Args:
        model: a path, ``FILE.py:function``, ``timm:NAME?weights=FILE``, or ``hf:DIR``.
        args: see `Source`; so are the others.
        inputs: see `Source`.
        shapes: see `Source`.
        ranges: see `Source`.
        more: ``free``, ``fixed``, ``layout``, ``embed``, ``detections`` of `Source`.

    Raises:
        UsageError: it is missing, of a kind that can't be read, or options don't fit the kind.
    """
    text = str(model)
    kind, path, function, found_args = _kind(text)
    given = {**found_args, **(args or {})}
    other = [name for name in args or {} if name != "preprocess"]
    if other and kind == "onnx":
        found = f"{path.name} has no get_model() to give it to"
        raise UsageError(f"--arg {other[0]}=...", found, "leave it away")
    if inputs and kind in ("timm", "huggingface"):
        raise UsageError(f"--inputs {inputs}", f"a {kind} model makes its own example", "leave it away")
    if inputs:
        check_readable(inputs, f"--inputs {inputs}")
    for name, shape in (shapes or {}).items():
        if any(size < 1 for size in shape):
            raise UsageError(f"--shape {name}={','.join(map(str, shape))}", "a size below 1", "give sizes from 1 up")
    return Source(text, path, kind, given, inputs, dict(shapes or {}), dict(ranges or {}), function=function, **more)


def _kind(text: str) -> tuple[str, Path, str, dict[str, str]]:
    """Kind, path, function and options in a model's text."""
    asked = f"the model {text}"
    scheme, colon, rest = text.partition(":")
    if colon and scheme == "timm":
        name, _, query = rest.partition("?")
        return "timm", Path(name), "", dict(parse_qsl(query, keep_blank_values=True))
    if colon and scheme == "hf":
        if not Path(rest).is_dir():
            todo = "give a folder that save_pretrained() wrote; nothing is downloaded"
            raise UsageError(asked, "no such folder", todo)
        return "huggingface", Path(rest), "", {}
    function = ""
    path = Path(text)
    if ".py:" in text and not path.exists():
        file, _, function = text.rpartition(":")
        path = Path(file)
    if path.suffix in _CHECKPOINTS and not path.is_dir():
        found = "a checkpoint: weights without the code that uses them"
        todo = f"write the code with `seatrial init --checkpoint {path.name}`, then export that"
        raise UsageError(asked, found, todo)
    check_readable(path, asked)
    if path.is_dir():
        return _folder(asked, path), path, "", {}
    if path.suffix not in _SUFFIXES:
        known = f"known kinds: {', '.join(_SUFFIXES)}, a SavedModel's folder, timm:NAME, hf:DIR"
        raise UsageError(asked, f"a file {path.suffix or 'without a suffix'}", known)
    if path.stat().st_size == 0:
        raise UsageError(asked, "the file is empty", "download or export it again")
    return _SUFFIXES[path.suffix], path, function or "get_model", {}


def _folder(asked: str, path: Path) -> str:
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    ways = {
        "config.json": ("a transformers folder", f"write hf:{path}"),
        "manifest.json": ("a bundle: it is exported already", "use `seatrial run`, `verify` or `bench` with it"),
    }
    for name, (found, todo) in ways.items():
        if (path / name).is_file():
            raise UsageError(asked, found, todo)
    raise UsageError(asked, "a folder without a saved_model.pb", f"known kinds: {', '.join(_SUFFIXES)}, hf:DIR")
