"""What goes into a model and what comes out: names, dtypes, shapes, value ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Attributes:
        name: the name that feeds and results use.
        dtype: numpy's name of the element type, such as ``float32``.
        shape: one entry per axis; an ``int``, or the name of a free dimension.
        low: smallest value that an integer input takes, where declared or seen.
        high: one more than the largest value.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: int | None = None
    high: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether an axis has no fixed size."""
        return any(isinstance(axis, str) for axis in self.shape)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON data."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        """The inverse of `to_dict`."""
        return cls(**{**data, "shape": tuple(data["shape"])})

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"
