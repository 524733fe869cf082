"""What an export would try: routes, gaps known beforehand, parts that are missing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core import process
from ..core.errors import MissingPart, SeatrialError, UsageError
from ..core.process import Limits
from ..devices import environments
from ..devices.facts import cpu_flags
from ..targets import get
from . import quantize
from .api import PRECISIONS, listed, source_of
from .convert import Step, routes
from .sources import Source
from .workspace import workspace

TELL = "seatrial.exporter.convert.look:tell"
LIMITS = Limits(timeout_s=120)
LOOKED_INTO = {"onnx": "ONNX Runtime", "pt2": "torch"}
"""Kinds of sources whose operators a file shows by itself, and what reads them."""


def plan(
    model: Path | str,
    target: str | Sequence[str],
    precision: str | Sequence[str],
    arguments: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One row per target and route: ``target``, ``route``, ``usable``, ``reason``, ``operators``.

    ``operators`` says which converters' tables the file's operators were held against. That takes the seconds in which
    a library is imported, and a file that shows them without running the user's code: an ``.onnx``, a ``.pt2``.

    Raises:
        UsageError: the model or a name is wrong; what is merely missing is a row.
    """
    reading = inspect.signature(source_of).parameters
    source = source_of(model, **{key: value for key, value in arguments.items() if key in reading})
    precisions = listed(precision)
    for kind in precisions:
        if kind not in PRECISIONS:
            raise UsageError(f"precision {kind!r}", "no such precision", f"known: {', '.join(PRECISIONS)}")
    with workspace("plan") as folder:
        look = _Look(source, folder)
        return [row for name in listed(target) for row in _rows(source, name, precisions, arguments, look)]


class _Look:
    """What converters say of a source's operators, each asked once, in a process of its own."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.found: dict[str, list[str] | None] = {}

    def at(self, function: str, python: Path | None = None) -> list[str] | None:
        """The gaps of a converter, or of the source's reader; None where they aren't known."""
        if function not in self.found:
            args = {"function": function, "source": str(self.source.path.resolve())}
            workdir = self.folder / str(len(self.found))
            try:
                answer = process.call(TELL, args, workdir=workdir, limits=LIMITS, label=function, python=python)
            except SeatrialError:  # it would be met, and told, by the export itself
                answer = {"gaps": None}
            self.found[function] = answer["gaps"]
        return self.found[function]

    def along(self, route: Sequence[Step]) -> tuple[list[str], str]:
        """The gaps of a route's first converter and of the source's reader, and which of them were asked."""
        if self.source.kind not in LOOKED_INTO:
            return [], "not looked at: the model must be read for that"
        asked: dict[str, list[str] | None] = {}
        if not _missing_readers(self.source):
            asked[LOOKED_INTO[self.source.kind]] = self.at(self.source.how.reader)
        for step in route[:1]:
            # One that stands in for another does so where the model itself is at hand.
            reads = step.source == self.source.formats[0] and not step.instead
            if reads and not step.missing():
                python = environments.interpreter(step.environment) if step.environment else None
                asked[step.label] = self.at(step.function, python)
        told = [name for name, gaps in asked.items() if gaps is not None]
        text = f"held against {', '.join(told)}" if told else "not looked at: no converter here tells what it knows"
        return [gap for gaps in asked.values() for gap in gaps or []], text


def _rows(
    source: Source, name: str, precisions: Sequence[str], arguments: Mapping[str, Any], look: _Look
) -> list[dict[str, Any]]:
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
        unknown, operators = look.along(route)
        reasons = list(dict.fromkeys(reasons + unknown))
        label = " · ".join(step.label for step in route) or ("as it comes" if found else "none")
        row = {"target": name, "route": label, "usable": not reasons, "reason": "; ".join(reasons)}
        rows.append({**row, "operators": operators})
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
