"""Candidates as rows of numbers: drawn, changed and compared many at once.

A column for each variable: the number of its level, its share of a continuous range, or `ABSENT`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.ids import canonical_json
from ..space import Space, Values
from ..variable import Variable

Array = NDArray[np.float64]
ABSENT = -1.0
MOST_LABELS = 32
"""Levels of more than so many are compared by distance alone."""
MOST_COUNTED = 16


class Codes:
    """Between candidates and rows.

    Args:
        space: of the candidates.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.variables = space, space.variables
        place = {variable.name: i for i, variable in enumerate(self.variables)}

        def rule(pairs: Sequence[tuple[str, frozenset[str]]]) -> list[tuple[int, Array]]:
            return [(place[name], _places(self.variables[place[name]], some)) for name, some in pairs]

        self._when = [rule(variable.conditions) for variable in self.variables]
        self._forbidden = [rule(forbidden.values) for forbidden in space.forbidden]
        self._free = np.array([v.levels is None or len(v.levels) > 1 for v in self.variables])
        self._labels = [i for i, v in enumerate(self.variables) if _labelled(v)]
        self._groups = _groups(self.variables)

    def encode(self, values: Mapping[str, Any]) -> Array:
        """A candidate's row."""
        return np.array([v.place(values[v.name]) if v.name in values else ABSENT for v in self.variables])

    def decode(self, row: Array) -> Values:
        """A row's candidate."""
        found: Values = {}
        for x, variable in zip(row, self.variables, strict=True):
            if x != ABSENT:
                found[variable.name] = variable.at(float(x)) if variable.levels is None else variable.levels[int(x)]
        return found

    def random(self, n: int, rng: np.random.Generator) -> Array:
        """About n rows, fewer where much is forbidden."""
        rows = np.full((2 * n if self._forbidden else n, len(self.variables)), np.nan)
        return self._valid(rows, rng)[:n]

    def along(self, rows: Array, share: float, rng: np.random.Generator) -> Array:
        """The same rows with each ordered variable at a share of its range. Forbidden ones are left out."""
        found = rows.copy()
        for i, place in self._at(share):
            found[:, i] = place
        return self._valid(found, rng)

    def off(self, rows: Array, share: float) -> Array:
        """How many ordered variables of each row stand elsewhere."""
        found = np.zeros(len(rows))
        for i, place in self._at(share):
            found += (rows[:, i] != ABSENT) & (np.abs(rows[:, i] - place) > 1e-9)
        return found

    def _at(self, share: float) -> list[tuple[int, float]]:
        """The place of each ordered variable there; numbers that are listed downwards are counted from their end."""
        ordered = [(i, v) for i, v in enumerate(self.variables) if v.ordered]
        return [(i, v.place(v.at(1 - share if v.falls else share))) for i, v in ordered]

    def mutate(self, rows: Array, rng: np.random.Generator) -> Array:
        """A neighbour of each row: one variable has another value, sometimes more. Forbidden ones are left out."""
        free = (rows != ABSENT) & self._free
        drawn = np.where(free, rng.random(rows.shape), 0.0)
        mask = drawn > 1 - 0.5 / max(int(self._free.sum()), 1)
        mask[np.arange(len(rows)), drawn.argmax(axis=1)] = True
        mask &= free
        found = rows.copy()
        for i, variable in enumerate(self.variables):
            at = np.flatnonzero(mask[:, i])
            found[at, i] = self._others(variable, rows[at, i], rng)
        return self._valid(found, rng)

    def _others(self, variable: Variable, old: Array, rng: np.random.Generator) -> Array:
        near = (rng.random(len(old)) < 0.5) & variable.ordered
        if variable.levels is None:
            shifted = np.clip(old + 0.1 * rng.normal(size=len(old)), 0, 1)
            return np.where(near, shifted, rng.random(len(old)))
        count = len(variable.levels)
        step = np.where(rng.random(len(old)) < 0.5, -1, 1)
        step = np.where((old + step < 0) | (old + step >= count), -step, step)
        any_other = (old + 1 + rng.integers(count - 1, size=len(old))) % count
        return np.where(near, old + step, any_other)

    def _valid(self, rows: Array, rng: np.random.Generator) -> Array:
        """Rows with what exists drawn where it is missing and what doesn't exist absent; without forbidden ones."""
        for i, variable in enumerate(self.variables):
            here = _meets(rows, self._when[i])
            empty = here & (np.isnan(rows[:, i]) | (rows[:, i] == ABSENT))
            rows[empty, i] = _draw(variable, int(empty.sum()), rng)
            rows[~here, i] = ABSENT
        bad = np.zeros(len(rows), bool)
        for rule in self._forbidden:
            bad |= _meets(rows, rule)
        return np.asarray(rows[~bad])

    def labels(self, rows: Array) -> Array:
        """Columns that are compared by being equal or not: levels, and whether a continuous range exists."""
        columns = []
        for i in self._labels:
            known = rows[:, i]
            columns.append(np.where(known == ABSENT, ABSENT, 0.0) if self.variables[i].levels is None else known)
        return np.array(columns).reshape(len(columns), len(rows)).T

    def numbers(self, rows: Array) -> Array:
        """Columns that are compared by distance.

        Where an ordered variable stands, 0 to 1; and, for variables with the same choices, such as a layer's kind at
        several places, how often each value occurs among them, and their mean: much depends less on the place.
        """
        columns = [self._shares(rows, i) for i, v in enumerate(self.variables) if v.ordered]
        for group in self._groups:
            levels = self.variables[group[0]].levels or ()
            if len(levels) <= MOST_COUNTED:
                columns += [(rows[:, group] == level).sum(axis=1) for level in range(len(levels))]
            if self.variables[group[0]].ordered:
                columns.append(np.mean([self._shares(rows, i) for i in group], axis=0) * 2)
        return np.array(columns, float).reshape(len(columns), len(rows)).T

    def _shares(self, rows: Array, i: int) -> Array:
        variable, x = self.variables[i], rows[:, i]
        if variable.levels is not None:
            shares = np.array([variable.share(level) for level in variable.levels])
            x = np.where(x == ABSENT, 0.5, shares[np.maximum(x, 0).astype(int)])
        return np.where(rows[:, i] == ABSENT, 0.5, x)


def _places(variable: Variable, some: frozenset[str]) -> Array:
    if variable.levels is not None:
        return np.array([i for i, level in enumerate(variable.levels) if canonical_json(level) in some], float)
    return np.array([variable.share(float(text)) for text in some])


def _labelled(variable: Variable) -> bool:
    if variable.levels is None:
        return bool(variable.conditions)
    return 1 < len(variable.levels) <= MOST_LABELS or not variable.ordered or bool(variable.conditions)


def _groups(variables: Sequence[Variable]) -> list[list[int]]:
    """Variables that have the same values: two or more."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, variable in enumerate(variables):
        if variable.levels is not None and len(variable.levels) > 1:
            found[canonical_json([list(variable.levels), variable.ordered])].append(i)
    return [group for group in found.values() if len(group) > 1]


def _meets(rows: Array, rule: Sequence[tuple[int, Array]]) -> NDArray[np.bool_]:
    found = np.ones(len(rows), bool)
    for i, places in rule:
        found &= np.isin(rows[:, i], places)
    return found


def _draw(variable: Variable, n: int, rng: np.random.Generator) -> Array:
    if variable.levels is None:
        return rng.random(n)
    if variable.log:
        return np.array([variable.place(variable.at(share)) for share in rng.random(n)], float)
    return rng.integers(len(variable.levels), size=n).astype(float)
