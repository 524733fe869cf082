"""Inputs to time a model with: made up for what it takes, or read from the user's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..core import samples
from ..core.errors import UsageError
from ..core.specs import TensorSpec

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.random import Generator

    from ..core.samples import Feed

WHOLE = {"uint8": (0, 256), "int8": (-128, 128), "bool": (0, 2)}
"""Types all of whose values are made up where no range is given: pixels, quantized numbers, flags."""


@dataclass(frozen=True)
class Wishes:
    """What the user says of the inputs, by their names.

    Attributes:
        shapes: sizes of every axis.
        ranges: low and high (one more than the largest) of integers.
        file: an ``.npz`` with one array for each input.
        seed: of numbers that are made up.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    file: Path | None = None
    seed: int = 0


def feed(specs: Sequence[TensorSpec], wishes: Wishes, batch: int | None, asked: str) -> Feed:
    """One array for each input: of the file, or normally distributed floats and uniform integers.

    Args:
        batch: size of the first axis of every input, instead of what the model and the file say.

    Raises:
        UsageError: the file's names are others, or a size or a range is not known.
    """
    import numpy as np

    if wishes.file is not None:
        found = _from_file(wishes.file, specs)
        return found if batch is None else repeated(found, batch, asked)
    rng = np.random.default_rng(wishes.seed)
    return {spec.name: _made_up(spec, wishes, batch, rng, asked) for spec in specs}


def repeated(values: Mapping[str, ndarray], batch: int, asked: str) -> Feed:
    """The samples of a feed over and over along the first axis, until there are `batch` of them.

    Raises:
        UsageError: an input without an axis.
    """
    import numpy as np

    _check_axes({name: array.ndim for name, array in values.items()}, asked)
    return {name: np.take(array, np.arange(batch) % len(array), axis=0) for name, array in values.items()}


def _made_up(spec: TensorSpec, wishes: Wishes, batch: int | None, rng: Generator, asked: str) -> ndarray:
    import numpy as np

    shape = _shape(spec, wishes, batch, asked)
    kind = np.dtype(spec.dtype).kind
    if kind == "f":
        return rng.standard_normal(shape).astype(spec.dtype)
    known = (spec.low, spec.high) if spec.low is not None and spec.high is not None else WHOLE.get(spec.dtype)
    limits = wishes.ranges.get(spec.name) or known
    if kind not in "iub":
        raise UsageError(f"{asked}: make up the input {spec}", f"{spec.dtype}", "give it with --inputs x.npz")
    if limits is None:
        todo = f"give --range {spec.name}=0:30000 (what it may hold), or --inputs x.npz"
        raise UsageError(f"{asked}: make up the input {spec}", "integers of an unknown range", todo)
    return rng.integers(limits[0], limits[1], shape).astype(spec.dtype)


def _shape(spec: TensorSpec, wishes: Wishes, batch: int | None, asked: str) -> list[int]:
    """Sizes as wished. Other ones than the file's fixed sizes are for the runtime to refuse: some take them."""
    given = wishes.shapes.get(spec.name)
    if given is not None and len(given) != len(spec.shape):
        found = f"{len(given)} sizes for an input of {len(spec.shape)} axes"
        raise UsageError(f"{asked}: --shape {spec.name}={','.join(map(str, given))}", found, f"the model wants {spec}")
    shape: list[int | str] = list(spec.shape if given is None else given)
    if batch is not None:
        _check_axes({spec.name: len(shape)}, asked)
        shape[0] = batch
    sizes = [axis for axis in shape if isinstance(axis, int)]
    if len(sizes) < len(shape):
        example = ",".join(str(axis) if isinstance(axis, int) else "1" for axis in shape)
        todo = f"give all its sizes, such as --shape {spec.name}={example}, or --inputs x.npz"
        named = f"; --shape is given for {', '.join(wishes.shapes)}" if wishes.shapes else ""
        raise UsageError(f"{asked}: make up the input {spec}", f"an axis without a fixed size{named}", todo)
    return sizes


def _check_axes(axes: Mapping[str, int], asked: str) -> None:
    without = [name for name, count in axes.items() if not count]
    if without:
        raise UsageError(f"{asked}: a batch", f"{', '.join(without)} has no axis", "leave --batch away")


def _from_file(path: Path, specs: Sequence[TensorSpec]) -> Feed:
    import numpy as np

    asked = f"inputs {path}"
    found = samples.arrays(path, asked)
    wanted = [spec.name for spec in specs]
    if set(found) != set(wanted):
        raise UsageError(asked, f"it holds {', '.join(found) or 'nothing'}", f"needed: {', '.join(wanted)}")
    for spec in specs:
        if not np.can_cast(found[spec.name].dtype, spec.dtype, "same_kind"):
            raise UsageError(asked, f"{spec.name} holds {found[spec.name].dtype}", f"the model wants {spec}")
    return {spec.name: found[spec.name].astype(spec.dtype, copy=False) for spec in specs}
