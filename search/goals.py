"""What a study file wants: objectives and constraints by name, and what they are as costs, which samplers minimise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.config import refuse_unknown
from ..core.errors import UsageError
from ..exporter.program import Program
from .again import check_files, check_name, described
from .choose import Bound
from .objectives import BUILT_IN, MEASURES, Objective
from .studyfile import UNLABELLED

KEYS = ("name", "measure", "cost", "slice", "function", "direction")
DEFAULT = ("accuracy", "latency_ms")
LOGARITHMIC = {
    "latency_ms", "latency_p95_ms", "load_ms", "size_bytes", "macs", "parameters", "peak_memory_bytes"
}  # fmt: skip
"""Above 0, and weighed by their ratios."""
BEFORE = {"macs", "parameters"}
"""Known of a graph before anything is converted."""
UNTRAINED = {"latency_ms", "latency_p95_ms", "load_ms", "size_bytes", "peak_memory_bytes", *BEFORE}
"""That weights don't change."""


@dataclass(frozen=True)
class Goals:
    """Objectives, the first of which decides between those that keep to the constraints.

    Attributes:
        names: of the objectives.
        bounds: the constraints.
        described: tables of the user's own objectives, by name.
        folder: of the study file: paths in it start there.
        added: objectives that the study has already, by name.
    """

    names: tuple[str, ...]
    bounds: tuple[Bound, ...]
    described: Mapping[str, Mapping[str, Any]]
    folder: Path
    added: Mapping[str, Objective] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        objectives: Sequence[Any],
        constraints: Sequence[Any],
        folder: Path,
        asked: str,
        added: Mapping[str, Objective] = {},
    ) -> Goals:
        """From a study file's lists, whose names may be those of objectives that the study has already.

        Raises:
            UsageError: what is wrong, where, and what to write.
        """
        names, own = [], {}
        for data in objectives or DEFAULT:
            if isinstance(data, Mapping):
                refuse_unknown(data.keys(), KEYS, f"{asked}: objectives")
                name = str(data.get("name", ""))
                check_name(name)
                own[name] = _texts(data, f"{asked}: objectives: {name}")
            elif isinstance(data, str) and (data in BUILT_IN or data in added):
                name = data
            else:
                found = f"{data!r} is none of this study"
                todo = f"one of {', '.join([*BUILT_IN, *added])}; or a table with a name and {', '.join(KEYS[1:])}"
                raise UsageError(f"{asked}: objectives", found, todo)
            names.append(name)
        if len(set(names)) < len(names):
            raise UsageError(f"{asked}: objectives", f"{', '.join(names)}", "name each once")
        if not all(isinstance(text, str) for text in constraints):
            raise UsageError(f"{asked}: constraints", f"{constraints!r}", 'write a list such as ["latency_ms <= 5"]')
        bounds = tuple(Bound.read(text) for text in constraints)
        goals = cls(tuple(names), bounds, own, folder, {k: v for k, v in added.items() if k not in own})
        for bound in goals.bounds:
            goals._check(bound, asked)
        return goals

    def _check(self, bound: Bound, asked: str) -> None:
        known = ", ".join([*BUILT_IN, *self.described, *self.added])
        if bound.name not in known.split(", "):
            raise UsageError(f"{asked}: constraints", f"no objective {bound.name!r}", f"known: {known}")
        side = ("<=", "<") if self.direction(bound.name) == "min" else (">=", ">")
        if bound.sign not in side:
            todo = f"{bound.name} {side[0]} {bound.limit:g}: a constraint bounds the worse side"
            raise UsageError(f"{asked}: constraints", str(bound), todo)

    def direction(self, name: str) -> str:
        """``max`` or ``min``."""
        if name in BUILT_IN:
            return BUILT_IN[name].direction
        if name in self.added:
            return self.added[name].direction
        table = self.described[name]
        return str(table.get("direction") or ("min" if "cost" in table else _natural(table)))

    def measure(self, name: str) -> str:
        """What an added objective measures; of others their name."""
        return self.added[name].measure if name in self.added else name

    @property
    def all(self) -> tuple[str, ...]:
        """Names of objectives and of what is bounded."""
        return tuple(dict.fromkeys([*self.names, *(bound.name for bound in self.bounds)]))

    def cost(self, name: str, value: float) -> float:
        """A value as what is minimised: errors for shares, else the value or its negative."""
        if self.direction(name) == "min":
            return value
        unit = BUILT_IN[name].unit if name in BUILT_IN else ""
        return 1 - value if unit == "share" else -value

    def check_unlabelled(self, asked: str) -> None:
        """Refuse what labelled data are needed for; added objectives may have data of their own.

        Raises:
            UsageError: which.
        """
        own = {name for name, objective in self.added.items() if objective.data}
        about = {*MEASURES, *self.described}
        unknown = [name for name in self.all if name not in own and self.measure(name) in about]
        if unknown:
            todo = f"define load_data(part), or choose others: {', '.join(UNLABELLED)}"
            raise UsageError(f"{asked}: objectives", f"{unknown[0]} without labelled data", todo)

    @property
    def limits(self) -> dict[str, float]:
        """The most of each cost that is bounded."""
        return {bound.name: self.cost(bound.name, bound.limit) for bound in self.bounds}

    def objectives(self, program: Program) -> list[Objective]:
        """The user's own, described against a model's classes.

        Raises:
            UsageError: one of them can't be had.
        """
        return [described(program, name, **self._table(name)) for name in self.described]

    def check_files(self, asked: str) -> None:
        """Refuse what is wrong with the user's own whatever the models, before anything is trained.

        Raises:
            UsageError: an unknown measure; a file that can't be read, is no cost matrix, or defines no such function.
        """
        for name in self.described:
            try:
                check_files(**self._table(name))
            except UsageError as error:
                what = error.asked.removeprefix("--")
                raise UsageError(f"{asked}: objectives: {name}: {what}", error.found, error.todo) from error

    def _table(self, name: str) -> dict[str, Any]:
        """What one of the user's own is described by; paths in it start beside the study file."""
        found: dict[str, Any] = {key: self.described[name].get(key) for key in KEYS[1:]}
        if found["cost"]:
            found["cost"] = self.folder / found["cost"]
        if found["function"]:
            found["function"] = str(self.folder / found["function"])
        kind, _, file = (found["slice"] or "").partition("=")
        if file and kind != "class":
            found["slice"] = f"{kind}={self.folder / file}"
        return found


def _texts(table: Mapping[str, Any], asked: str) -> dict[str, Any]:
    for key, value in table.items():
        if value is not None and not (isinstance(value, str) and value):
            raise UsageError(f"{asked}: {key}", f"{value!r}", "write text, or leave it out")
    return dict(table)


def _natural(table: Mapping[str, Any]) -> str:
    measure = table.get("measure") or "accuracy"
    return BUILT_IN[measure].direction if measure in BUILT_IN else "max"
