"""What an export would try: routes, gaps known beforehand, parts that are missing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import MissingPart, UsageError
from ..devices.facts import cpu_flags
from ..targets import get
from . import quantize
from .api import PRECISIONS, listed, source_of
from .convert import routes
from .sources import Source


def plan(
    model: Path | str,
    target: str | Sequence[str],
    precision: str | Sequence[str],
    arguments: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row per target and route: ``target``, ``route``, ``usable``, ``reason``.

    Raises:
        UsageError: the model or a name is wrong; what is merely missing is a row.
    """
    reading = inspect.signature(source_of).parameters
    source = source_of(model, **{key: value for key, value in arguments.items() if key in reading})
    precisions = listed(precision)
    for kind in precisions:
        if kind not in PRECISIONS:
            raise UsageError(f"precision {kind!r}", "no such precision", f"known: {', '.join(PRECISIONS)}")
    return [row for name in listed(target) for row in _rows(source, name, precisions, arguments)]


def _rows(source: Source, name: str, precisions: Sequence[str], arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    target = get(name)
    gaps = []
    missing = target.probe()
    if missing:
        gaps.append(f"{missing.what}: {missing.todo}")
    gaps += _missing_readers(source)
    able = target.precisions(cpu_flags())
    gaps += [f"{kind} can't run on this CPU" for kind in precisions if kind not in able]
    if "int8" in precisions and not arguments.get("calibration") and not source.may_calibrate:
        gaps.append("int8 needs --calibration")
    if "int8" in precisions:
        gaps += _missing(lambda: quantize.need(name))
    found = [route for start in source.formats for route in routes(start, target.format)]
    if not found:
        gaps.append(f"there is no route from {source.kind} to {target.format} yet")
    rows = []
    for route in found or [[]]:
        reasons = gaps + [part for step in route for part in _missing(step.need)]
        if source.free and any(step.fixed for step in route):
            reasons.append(f"it can't keep {source.free[0].name} free: use --bucket")
        reasons = list(dict.fromkeys(reasons))
        label = " · ".join(step.label for step in route) or ("as it comes" if found else "none")
        rows.append({"target": name, "route": label, "usable": not reasons, "reason": "; ".join(reasons)})
    return rows


def _missing_readers(source: Source) -> list[str]:
    """What reading the source needs, whatever its target: an ``.onnx`` is held against ONNX Runtime's answers."""
    todo = f'pip install "seatrial[{source.how.extra}]"'
    return [f"the module {name} is not installed: {todo}" for name in source.how.needs if find_spec(name) is None]


def _missing(need: Callable[[], None]) -> list[str]:
    try:
        need()
    except MissingPart as error:
        return [f"{error.found}: {error.todo}"]
    return []
