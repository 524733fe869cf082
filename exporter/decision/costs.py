"""A cost matrix: what each decision costs when each class is the true one."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...core.paths import check_readable

if TYPE_CHECKING:
    from numpy import ndarray

_SHAPE = "the first row names the decisions, each other row a true class with its costs"


@dataclass(frozen=True)
class Costs:
    """Costs C[true class, decision]; there may be more decisions than classes, or others.

    Attributes:
        classes: names, in the order of the model's output.
        decisions: names.
        values: a row for each class, a number for each decision.
    """

    classes: list[str]
    decisions: list[str]
    values: list[list[float]]

    @property
    def matrix(self) -> ndarray:
        """float64 (classes, decisions)."""
        import numpy as np

        return np.array(self.values, np.float64)

    @property
    def of_class(self) -> list[int] | None:
        """The decision that has each class's name; None where the decisions are others."""
        if not set(self.classes) <= set(self.decisions):
            return None
        return [self.decisions.index(name) for name in self.classes]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def read_costs(path: Path, labels: Sequence[str] | None) -> Costs:
    """A CSV file whose first row names the decisions and whose first column names the true classes.

    Rows may stand in any order; each class of the model has one. Columns hold all classes (more may come beside them,
    such as ``ask a person``), or other decisions altogether.

    Args:
        path: the file.
        labels: the model's class names, in the order of its output.

    Raises:
        UsageError: it can't be read, or its names are not the model's.
    """
    asked = f"the cost matrix {path}"
    if not labels:
        raise UsageError(asked, "the model declares no classes", "give it get_labels(); docs/objectives.md tells more")
    decisions, costs = _table(path, asked)
    _check_names(asked, list(costs), decisions, labels)
    return Costs(list(labels), decisions, [costs[name] for name in labels])


def check_costs(path: Path) -> None:
    """Refuse what is no cost matrix, whatever the model's classes.

    Raises:
        UsageError: it can't be read, or is none.
    """
    _table(path, f"the cost matrix {path}")


def _table(path: Path, asked: str) -> tuple[list[str], dict[str, list[float]]]:
    """The names of the decisions, and by the name of each true class its costs."""
    check_readable(path, asked)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(asked, f"it can't be read: {error}", _SHAPE) from error
    if len(rows) < 2 or len(rows[0]) < 3:
        raise UsageError(asked, "it holds no costs of two decisions or more", _SHAPE)
    decisions = rows[0][1:]
    for side in (decisions, [row[0] for row in rows[1:]]):
        twice = [repr(name) for name in dict.fromkeys(side) if side.count(name) > 1]
        if twice:
            raise UsageError(asked, f"{', '.join(twice)} stands twice", _SHAPE)
    costs = {row[0]: [_number(asked, row[0], cell) for cell in row[1:]] for row in rows[1:]}
    for name, row in costs.items():
        if len(row) != len(decisions):
            raise UsageError(
                asked, f"the row {name} has {len(row)} costs, {len(decisions)} decisions are named", _SHAPE
            )
    return decisions, costs


def _check_names(asked: str, rows: Sequence[str], decisions: Sequence[str], labels: Sequence[str]) -> None:
    unknown, missing = _less(rows, labels), _less(labels, rows)
    wrong = [f"no such class: {_few(unknown)}"] if unknown else []
    wrong += [f"no row for {_few(missing)}"] if missing else []
    missing = _less(labels, decisions)
    if 0 < len(missing) < len(labels):  # where classes are decisions, all of them are
        wrong.append(f"no column for {_few(missing)}")
    if wrong:
        raise UsageError(asked, "; ".join(wrong), f"the model's classes: {_few(labels)}")


def _less(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name not in set(others)]


def _few(names: Sequence[str], most: int = 12) -> str:
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _number(asked: str, row: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(asked, f"the row {row} holds {cell!r}", "costs are plain numbers")
    return value
