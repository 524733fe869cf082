"""A study as one table: a row for each candidate, and for each model that never came to be one; to a CSV file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.paths import whole_file

if TYPE_CHECKING:
    from .study import Study

Row = dict[str, Any]
_FIRST = ("id", "model", "target", "device", "precision", "status", "reason", "chosen", "front")


def write_csv(study: Study, path: Path) -> int:
    """Write the table with a line of names, and say how many rows it has.

    Raises:
        NotWritten: the file can't be written.
    """
    rows = table_of(study)
    names = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def table_of(study: Study) -> list[Row]:
    """A flat row for each candidate, and for each model without one.

    Settings are columns ``settings.NAME``, a model's values ``model.NAME``; objectives, those that were added too, have
    columns of their names, with ``_low`` and ``_high`` for the interval. What isn't known is missing.
    """
    chosen: dict[str, list[str]] = {}
    for name, id in study.winners.items():
        chosen.setdefault(id, []).append(name)
    models = study.document.get("models", {})
    added = {name: study.estimates(name) for name in study.objectives}
    rows = []
    for candidate in study.candidates:
        row = {k: v for k, v in candidate.items() if k not in ("settings", "values", "intervals")}
        row["chosen"] = " ".join(chosen.get(candidate["id"], []))
        row |= {f"settings.{name}": value for name, value in candidate["settings"].items()}
        row |= {name: value for name, value in candidate.get("values", {}).items() if name not in row}
        for name, (low, high) in candidate.get("intervals", {}).items():
            row |= {f"{name}_low": low, f"{name}_high": high}
        for name, found in added.items():
            if candidate["id"] in found:
                one = found[candidate["id"]]
                row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        rows.append(row | _of_model(models.get(candidate.get("model"), {})))
    deployed = {candidate.get("model") for candidate in study.candidates}
    alone = [{"model": key, **_failed(one), **_of_model(one)} for key, one in models.items() if key not in deployed]
    return [*rows, *alone]


def _failed(one: Mapping[str, Any]) -> Row:
    """Of a model that was never deployed."""
    return {name: one[name] for name in ("status", "reason", "kind", "macs", "parameters", "accuracy")}


def _of_model(one: Mapping[str, Any]) -> Row:
    if not one:
        return {}
    values = {f"model.{name}": plain(value) for name, value in one["values"].items()}
    return {**values, "trained": one["trained"], "training_s": one["seconds"]}


def plain(value: Any) -> Any:
    """A value of a variable as a number, a text or a truth value; lists and the like as JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)
