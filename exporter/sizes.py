"""Free dimensions and buckets: which axes of which inputs have no fixed size, and the sizes that they take.

An axis is written ``INPUT.AXIS`` (``ids.1``), or by the name that the model gives to a free dimension (``seq_len``);
``batch`` is the first axis of every input. Axes that are always equal are chained: ``ids.1=mask.1=8:512``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.specs import TensorSpec

if TYPE_CHECKING:
    from numpy import ndarray

    from ..core.samples import Feed

BATCH = "batch"


@dataclass(frozen=True)
class Size:
    """One dimension that the user lets vary, or fixes to several sizes in turn.

    Attributes:
        axes: as the user wrote them; the first is its name.
        low: smallest size.
        high: largest size.
    """

    axes: tuple[str, ...]
    low: int
    high: int

    @property
    def name(self) -> str:
        """What specs and reports call it."""
        return self.axes[0]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Size:
        """The inverse of `to_dict`."""
        return cls(tuple(data["axes"]), data["low"], data["high"])


def dynamic(text: str) -> Size:
    """A ``--dynamic`` option: ``batch=1:64``, ``ids.1=mask.1=8:512``.

    Raises:
        UsageError: not of that form, or a range that holds nothing.
    """
    asked = f"--dynamic {text}"
    axes, value = _split(asked, text, "AXIS=LOW:HIGH, such as batch=1:64")
    low, _, high = value.partition(":")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) < int(high)):
        raise UsageError(asked, f"{value!r} is no range of sizes", "give LOW:HIGH from 1 up, such as batch=1:64")
    return Size(axes, int(low), int(high))


def bucket(text: str) -> list[Size]:
    """A ``--bucket`` option, one fixed `Size` each: ``ids.1=mask.1=32,128,512``.

    Raises:
        UsageError: not of that form.
    """
    asked = f"--bucket {text}"
    axes, value = _split(asked, text, "AXIS=SIZE,SIZE, such as ids.1=32,128")
    sizes = value.split(",")
    if not all(size.isdecimal() and int(size) >= 1 for size in sizes):
        raise UsageError(asked, f"{value!r} are no sizes", "give whole numbers from 1 up, such as ids.1=32,128")
    return [Size(axes, int(size), int(size)) for size in dict.fromkeys(sizes)]


def _split(asked: str, text: str, form: str) -> tuple[tuple[str, ...], str]:
    *axes, value = text.split("=")
    if not axes or not all(axes):
        raise UsageError(asked, "no axis is named", f"write {form}")
    return tuple(axes), value


def places(size: Size, inputs: Sequence[TensorSpec]) -> list[tuple[str, int]]:
    """Input and axis of each place that a size stands for.

    Raises:
        UsageError: no input, axis or free dimension of that name.
    """
    found: list[tuple[str, int]] = []
    by_name = {spec.name: spec for spec in inputs}
    for text in size.axes:
        named = [(spec.name, i) for spec in inputs for i, axis in enumerate(spec.shape) if axis == text]
        name, _, axis = text.rpartition(".")
        if named:
            found += named
        elif text == BATCH:
            found += [(spec.name, 0) for spec in inputs if spec.shape]
        elif name in by_name and axis.isdecimal() and int(axis) < len(by_name[name].shape):
            found.append((name, int(axis)))
        else:
            todo = f"write INPUT.AXIS, a free dimension's name, or batch; the inputs: {', '.join(map(str, inputs))}"
            raise UsageError(f"the axis {text}", "the model has no such axis", todo)
    return list(dict.fromkeys(found))


def freed(inputs: Sequence[TensorSpec], sizes: Sequence[Size]) -> list[TensorSpec]:
    """The specs with these dimensions free, under their names."""
    return _with(inputs, [(place, size.name) for size in sizes for place in places(size, inputs)])


def fixed(inputs: Sequence[TensorSpec], sizes: Sequence[Size]) -> list[TensorSpec]:
    """The specs with these dimensions fixed to their size."""
    return _with(inputs, [(place, size.low) for size in sizes for place in places(size, inputs)])


def tried(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> tuple[Size, ...]:
    """The free dimensions, fixed to the sizes that were given to try; nothing where one of them has none."""
    free = [(spec.name, i) for spec in inputs for i, axis in enumerate(spec.shape) if isinstance(axis, str)]
    if not all(name in shapes for name, _ in free):
        return ()
    return tuple(Size((f"{name}.{i}",), shapes[name][i], shapes[name][i]) for name, i in free)


def _with(inputs: Sequence[TensorSpec], changes: Sequence[tuple[tuple[str, int], int | str]]) -> list[TensorSpec]:
    shapes = {spec.name: list(spec.shape) for spec in inputs}
    for (name, axis), value in changes:
        shapes[name][axis] = value
    return [replace(spec, shape=tuple(shapes[spec.name])) for spec in inputs]


def resized(feed: Feed, wanted: Sequence[TensorSpec]) -> Feed:
    """The feed in the fixed sizes of these specs: cut, or repeated, along each axis that differs."""
    return {spec.name: _resized(feed[spec.name], spec.shape) for spec in wanted}


def _resized(array: ndarray, shape: Sequence[int | str]) -> ndarray:
    import numpy as np

    for axis, size in enumerate(shape):
        if isinstance(size, int) and array.shape[axis] != size:
            array = np.take(array, np.arange(size) % array.shape[axis], axis)
    return array
