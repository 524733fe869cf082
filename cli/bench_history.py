"""`seatrial bench --history`: stored figures over time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.history import Change, Point, Series


ADVICE = """\
Each series is of one device, runtime version and settings. Sessions of other days differ by their days too: a change
here is a reason to run `seatrial compare`, never its verdict."""


def bench_history(models: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the series of a store; with `models`, those whose name is among them."""
    from ..core.errors import UsageError
    from ..devices.history import history
    from ..devices.store import Store

    if not store:
        raise click.UsageError("--history shows what lies in a store: give --store URL")
    if "://" not in store and not Path(store).is_file():
        raise UsageError(f"the store {store}", "no such file", "give the --store of earlier runs of bench")
    opened = Store(store)
    try:
        found = history(opened)
    finally:
        opened.close()
    known = list(dict.fromkeys(series.name for series in found))
    for name in models:
        if name not in known:
            raise UsageError(f"the history of {name}", "the store has no such name", f"it has: {', '.join(known)}")
    found = [series for series in found if not models or series.name in models]
    if as_json:
        click.echo(json.dumps({"schema": "seatrial.history/1", "series": [series.to_dict() for series in found]}))
    for series in found:
        for line in _lines(series):
            click.echo(line, err=as_json)
    click.echo(ADVICE, err=as_json)


def _lines(series: Series) -> list[str]:
    points = series.points
    head = f"{series.name}: {series.runtime}, {ui.settings(series.settings)}, on {series.device}"
    lowest, highest = min(p.ms for p in points), max(p.ms for p in points)
    span = f"{len(points)} sessions from {_day(points[0])} to {_day(points[-1])}"
    lines = [head, f"  {span}; last {points[-1].ms:.3f} ms, all between {lowest:.3f} and {highest:.3f}"]
    lines += [f"  {_change(change, points)}" for change in series.changes]
    return lines if series.changes else [*lines, "  no change of the level was seen"]


def _change(change: Change, points: list[Point]) -> str:
    why = "the files are the same: look at the machine" if change.same_artifact else "the files changed too"
    size = f"{change.before_ms:.3f} to {change.after_ms:.3f} ms ({change.ratio - 1:+.1%})"
    return f"{_day(points[change.at])}: {size}; {why}"


def _day(point: Point) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(point.created))
