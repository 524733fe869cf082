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
from ..core.paths import check_readable
from ..core.specs import TensorSpec
from .images import SUFFIXES, Preprocess

if TYPE_CHECKING:
    from numpy import ndarray

    from ..core.samples import Feed

ONLY = "inputs"
"""In an ``.npz``, stands for the input of a model that has only one, whatever that is called."""
ROWS = "rows"
"""In an ``.npz`` of some of the data, which rows of the whole they are."""


@dataclass(frozen=True)
class Data:
    """A named set of feeds, with integer class labels, the files' names, and rows of a larger set where known."""

    name: str
    id: str
    feeds: list[Feed]
    labels: list[int] | None = None
    names: list[str] | None = None
    rows: list[int] | None = None

    def __len__(self) -> int:
        return len(self.feeds)

    def to_dict(self) -> dict[str, Any]:
        """What reports say of it."""
        return {"name": self.name, "id": self.id, "n": len(self)}

    @property
    def facts(self) -> dict[str, Any]:
        """What a Program keeps of it beside the feeds."""
        rows = {ROWS: self.rows} if self.rows else {}
        return {**self.to_dict(), "labels": self.labels, "names": self.names, **rows}


def load(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    what: str,
    classes: Sequence[str] | None = None,
) -> Data:
    """A folder of pictures, or an ``.npz``, as feeds for these inputs.

    A folder holds pictures, labelled by a ``labels.csv`` (``file,label``) where there is one, or one folder per class;
    a label is the class's number or, where the names of the `classes` are known, its name. An ``.npz`` holds an array
    per input whose first axis counts the samples (its batch axis), and integer ``labels`` where there are any; an only
    input may be called `ONLY`; `ROWS` tells which rows of a larger set they are.

    Raises:
        UsageError: nothing there, unreadable, or not of a kind that fits the model.
    """
    asked = f"{what} data {path}"
    check_readable(path, asked)
    if path.is_dir():
        return _folder(path, inputs, preprocess, what, classes)
    if path.suffix == ".npz":
        return _npz(path, inputs, asked)
    raise UsageError(asked, "neither a folder nor an .npz file", "give a folder of pictures, or an .npz")


def _folder(
    path: Path,
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    what: str,
    classes: Sequence[str] | None,
) -> Data:
    asked = f"{what} data {path}"
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
    labels = _labels(path, files, what, list(classes or ()))
    return Data(path.name, key, feeds, labels, [str(p.relative_to(path)) for p in files])


def _labels(path: Path, files: list[Path], what: str, classes: list[str]) -> list[int] | None:
    asked, table = f"{what} data {path}", path / "labels.csv"
    if not table.exists():
        folders = [file.parent.name for file in files]
        known = [name.isdecimal() or name in classes for name in folders]
        # Calibration needs no labels; elsewhere a folder that is none beside some that are is a slip.
        slip = any(name in classes for name in folders) and what != "calibration"
        return _numbers(folders, classes, asked) if all(known) or slip else None
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # Excel writes a BOM
            rows = {row["file"]: row["label"] for row in csv.DictReader(file)}
        names = {name: rows[name] for name in (str(p.relative_to(path)) for p in files)}
        bare = next((name for name, label in names.items() if not label), None)
        if bare:
            raise UsageError(asked, f"in labels.csv {bare} has no label", "write one in each row")
        return _numbers([label.strip() for label in names.values()], classes, f"{asked}: labels.csv")
    except KeyError as error:
        todo = "it needs the columns file,label and a row for each picture"
        raise UsageError(asked, f"labels.csv has no {error}", todo) from error
    except (csv.Error, ValueError, OSError) as error:
        raise UsageError(asked, f"labels.csv can't be read: {error}", "write it anew, as UTF-8") from error


def _numbers(names: list[str], classes: list[str], asked: str) -> list[int]:
    """Classes by their numbers, or their names where these are known."""
    strange = sorted({name for name in names if not name.isdecimal() and name not in classes})
    if strange:
        told = ", ".join(strange[:5]) + (" ..." if len(strange) > 5 else "")
        own = f", or the model's classes: {', '.join(classes[:10])}" if classes else ""
        raise UsageError(asked, f"no class is called {told}", f"labels are whole numbers from 0{own}")
    return [int(name) if name.isdecimal() else classes.index(name) for name in names]


def _npz(path: Path, inputs: Sequence[TensorSpec], asked: str) -> Data:
    arrays = samples.arrays(path, asked)
    names = [spec.name for spec in inputs]
    counted = {name: arrays.pop(name) for name in ("labels", ROWS) if name in arrays and name not in names}
    if len(names) == 1 and set(arrays) == {ONLY}:
        arrays = {names[0]: arrays[ONLY]}
    if set(arrays) != set(names):
        raise UsageError(asked, f"it holds {', '.join(arrays)}", f"needed: {', '.join(names)} (and labels)")
    shapes = [array.shape for array in arrays.values()]
    n = shapes[0][0] if shapes[0] else 0
    if not n or any(shape[:1] != (n,) for shape in shapes):
        todo = "the first axis counts the samples: the same number in each array, at least one"
        raise UsageError(asked, f"arrays of the shapes {', '.join(map(str, shapes))}", todo)
    for name, array in counted.items():
        if array.shape != (n,) or array.dtype.kind not in "iu":
            raise UsageError(asked, f"{name} of {array.dtype}{list(array.shape)}", f"needed: {n} whole numbers")
    whole = {spec.name: cast(arrays[spec.name], spec, asked) for spec in inputs}
    feeds = [{name: array[i : i + 1] for name, array in whole.items()} for i in range(n)]
    _check_shapes(feeds[0], inputs, asked)
    labels, rows = ([int(x) for x in counted[name]] if name in counted else None for name in ("labels", ROWS))
    return Data(path.name, file_sha256(path)[:16], feeds, labels, rows=rows)


def cast(array: ndarray, spec: TensorSpec, asked: str) -> ndarray:
    """The array in the input's own type; numbers of the same kind may lose digits, nothing else is bent.

    Raises:
        UsageError: text for numbers, fractions for whole numbers, and the like.
    """
    import numpy as np

    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise UsageError(asked, f"{spec.name} holds {array.dtype}", f"the model wants {spec}")
    return array.astype(spec.dtype, copy=False)


def _check_shapes(feed: Feed, inputs: Sequence[TensorSpec], asked: str) -> None:
    for spec in inputs:
        shape = feed[spec.name].shape
        fits = len(shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise UsageError(asked, f"a sample has the shape {list(shape)}", f"the model wants {spec}")
