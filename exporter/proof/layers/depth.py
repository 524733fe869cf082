"""How far an artifact is from its source, layer by layer: the rows of a table, and the layer to blame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        path: of the module in the user's model; empty for what stands in none.
        type: what it does, with the module's class: ``conv2d (Conv2dSame)``.
        sqnr_db: of the artifact's tensor, in dB; None where the artifact has no such tensor: a converter folded it.
        operation: the artifact's operation that gives it.
    """

    path: str
    type: str
    sqnr_db: float | None
    operation: str = ""


@dataclass(frozen=True)
class Culprit:
    """The layer to blame.

    Attributes:
        path: of the module in the user's model.
        type: what it does.
        row: index of its row.
        folded_with: paths of the modules that the artifact holds in one operation with it.
        operation: the artifact's operation, where it can be told.
        before_db: the lowest SQNR among its inputs.
        at_db: the SQNR of its output; None where the artifact has nothing of its size.
    """

    path: str
    type: str
    row: int
    folded_with: list[str]
    operation: str
    before_db: float
    at_db: float | None

    def __str__(self) -> str:
        """``blocks.1.0.conv_dw (conv2d), in the artifact CONV_2D 7: 127 dB before it, 12.3 dB after``."""
        others = f", folded with {', '.join(self.folded_with)}" if self.folded_with else ""
        inside = f", in the artifact {self.operation}" if self.operation else ""
        after = "nothing of its size" if self.at_db is None else f"{self.at_db:.1f} dB"
        return (
            f"{self.path or 'the model'} ({self.type}{others}{inside}): {self.before_db:.1f} dB before, {after} after"
        )


@dataclass(frozen=True)
class Depth:
    """The error along the depth of a network.

    Attributes:
        target: name of the target.
        precision: of the artifact.
        bar_db: what every tensor must hold, in dB.
        samples: names of the inputs that both ran on.
        rows: in the order of execution.
        culprit: the layer to blame; None where all is well. In int8, which adds noise all along, the layer that adds
            most.
    """

    target: str
    precision: str
    bar_db: float
    samples: list[str]
    rows: list[Row] = field(default_factory=list)
    culprit: Culprit | None = None

    @property
    def mark(self) -> str:
        """What the culprit is called."""
        return "most noise" if self.precision == "int8" else "first wrong"

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "mark": self.mark}


HEAD = ("module", "type", "SQNR, dB", "in the artifact", "")


def table(depth: Depth) -> list[list[str]]:
    """Rows of text: module, type, SQNR in dB, the artifact's operation, a mark on the culprit."""
    marked = depth.culprit.row if depth.culprit else -1
    return [[*_cells(row), depth.mark if i == marked else ""] for i, row in enumerate(depth.rows)]


def _cells(row: Row) -> Sequence[str]:
    return (row.path, row.type, "folded" if row.sqnr_db is None else f"{row.sqnr_db:.1f}", row.operation)
