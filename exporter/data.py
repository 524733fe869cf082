"""Real data: samples to calibrate with, labelled ones to score."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.errors import UsageError
from ..core.ids import content_id, file_sha256
from ..core.specs import TensorSpec
from .images import SUFFIXES, Preprocess

if TYPE_CHECKING:
    from ..core.samples import Feed


@dataclass(frozen=True)
class Data:
    """A named set of feeds, with integer class labels where they are known."""

    name: str
    id: str
    feeds: list[Feed]
    labels: list[int] | None = None

    def __len__(self) -> int:
        return len(self.feeds)

    def to_dict(self) -> dict[str, Any]:
        """What reports say of it."""
        return {"name": self.name, "id": self.id, "n": len(self)}


def load(path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, what: str) -> Data:
    """A folder of pictures, or an ``.npz``, as feeds for these inputs.

    A folder holds pictures, labelled by a ``labels.csv`` (``file,label``) where there is one, or one folder per class
    whose name is the class's number. An ``.npz`` holds an array per input whose first axis counts the samples (its
    batch axis), and integer ``labels`` where there are any.

    Raises:
        UsageError: nothing there, unreadable, or not of a kind that fits the model.
    """
    asked = f"{what} data {path}"
    if not path.exists():
        raise UsageError(asked, "no such file or folder", "check the path")
    if path.is_dir():
        return _folder(path, inputs, preprocess, asked)
    if path.suffix == ".npz":
        return _npz(path, inputs, asked)
    raise UsageError(asked, "neither a folder nor an .npz file", "give a folder of pictures, or an .npz")


def _folder(path: Path, inputs: Sequence[TensorSpec], preprocess: Preprocess | None, asked: str) -> Data:
    try:
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise UsageError(asked, f"it can't be read: {error.strerror}", "check its permissions") from error
    if not files:
        raise UsageError(asked, "no pictures in it", f"known kinds: {', '.join(sorted(SUFFIXES))}")
    if preprocess is None:
        todo = "add get_preprocess() to the model's file, or give an .npz of ready inputs"
        raise UsageError(asked, "how to turn pictures into inputs is not known", todo)
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        given = ", ".join(map(str, inputs))
        raise UsageError(asked, f"pictures need a model with one input of four axes; it has {given}", "give an .npz")
    feeds = [{inputs[0].name: preprocess.load(file)} for file in files]
    _check_shapes(feeds[0], inputs, asked)
    key = content_id([preprocess.to_dict(), [[p.name, file_sha256(p)] for p in files]])
    return Data(path.name, key, feeds, _labels(path, files, asked))


def _labels(path: Path, files: list[Path], asked: str) -> list[int] | None:
    table = path / "labels.csv"
    if not table.exists():
        folders = [file.parent.name for file in files]
        return [int(name) for name in folders] if all(name.isdigit() for name in folders) else None
    try:
        with table.open(newline="") as file:
            rows = {row["file"]: int(row["label"]) for row in csv.DictReader(file)}
        return [rows[str(p.relative_to(path))] for p in files]
    except KeyError as error:
        todo = "it needs the columns file,label and a row for each picture"
        raise UsageError(asked, f"labels.csv has no {error}", todo) from error
    except (ValueError, OSError) as error:
        raise UsageError(asked, f"labels.csv can't be read: {error}", "labels are whole numbers") from error


def _npz(path: Path, inputs: Sequence[TensorSpec], asked: str) -> Data:
    arrays = samples.arrays(path, asked)
    labels = arrays.pop("labels", None)
    names = [spec.name for spec in inputs]
    if set(arrays) != set(names):
        raise UsageError(asked, f"it holds {', '.join(arrays)}", f"needed: {', '.join(names)} (and labels)")
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise UsageError(asked, f"arrays of {sorted(counts)} samples", "each array needs the same number, at least one")
    feeds = [_cut(arrays, inputs, i) for i in range(counts.pop())]
    _check_shapes(feeds[0], inputs, asked)
    return Data(path.name, file_sha256(path)[:16], feeds, None if labels is None else [int(x) for x in labels])


def _cut(arrays: dict[str, Any], inputs: Sequence[TensorSpec], i: int) -> Feed:
    return {spec.name: arrays[spec.name][i : i + 1].astype(spec.dtype, copy=False) for spec in inputs}


def _check_shapes(feed: Feed, inputs: Sequence[TensorSpec], asked: str) -> None:
    for spec in inputs:
        shape = feed[spec.name].shape
        fits = len(shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(asked, f"a sample has the shape {list(shape)}", f"the model wants {spec}")
