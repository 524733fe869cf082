"""What a capture is asked to do: JSON data, so that it can go to a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..sizes import Size

SKIPPED = {"skipped": True}
"""What a capture answers for a converter that it didn't run."""


@dataclass(frozen=True)
class Job:
    """One capture.

    Attributes:
        path: the user's file or folder, or the text after ``timm:``.
        name: what people call the model.
        folder: takes the Program.
        args: texts for the parameters of ``get_model``, or options of a ``timm:`` source.
        data: paths of the user's data by use: ``calibration``, ``evaluate``, ``confirm``.
        inputs: an ``.npz`` with an example of each input, or None.
        shapes: the shape to try, by input.
        ranges: low and high (exclusive), by integer input.
        free: dimensions that stay free.
        fixed: dimensions that are set to one size (a bucket).
        function: of a ``.py``, the one that makes the model.
        layout: ``nchw`` or ``nhwc`` for pictures at the boundary; empty for the source's own.
        embed: whether preprocessing goes into the graph, which then takes pixels.
        detections: the outputs of a declared detector, see `proof.detections.read`; empty for others.
        then: converters to run in the process that captures, as ``{"source": format, "function": "module:name",
            "args": {...}, "label": "...", "after": label or ""}``; one with ``after`` runs only where that other one
            failed.
    """

    path: str
    name: str
    folder: str
    args: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    inputs: str | None = None
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    ranges: Mapping[str, list[int]] = field(default_factory=dict)
    free: list[Size] = field(default_factory=list)
    fixed: list[Size] = field(default_factory=list)
    function: str = "get_model"
    layout: str = ""
    embed: bool = False
    detections: Mapping[str, Any] = field(default_factory=dict)
    then: list[dict[str, Any]] = field(default_factory=list)

    @property
    def asked(self) -> str:
        """Opens error messages."""
        return f"the model {self.path}"

    @property
    def limits(self) -> dict[str, list[int]]:
        """Lowest and highest size of each free dimension, by name."""
        return {size.name: [size.low, size.high] for size in self.free}

    @property
    def sizes(self) -> list[dict[str, Any]]:
        """All that was asked of dimensions, as JSON data."""
        return [size.to_dict() for size in (*self.free, *self.fixed)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The inverse of `to_dict`."""
        sizes = {key: [Size.from_dict(size) for size in data[key]] for key in ("free", "fixed")}
        return cls(**{**data, **sizes})
