"""One variable of a search space: a choice among values, or a range of numbers; and when it exists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from ..core.config import refuse_unknown
from ..core.errors import UsageError
from ..core.ids import canonical_json

if TYPE_CHECKING:
    import numpy as np

MOST_LEVELS = 10_000
"""A range of more steps is handled as if it were continuous, and rounded."""


@dataclass(frozen=True)
class Variable:
    """Frozen data.

    Attributes:
        name: of the variable.
        choices: its values; empty for a range.
        ordered: whether neighbours among the choices are alike. Always true of a range.
        low: of a range.
        high: of a range, included.
        step: between values, from `low` on; None = continuous (or whole, where both ends are).
        log: drawn, and compared, on a logarithmic scale.
        when: as written: name → value or values.
        conditions: the same, as canonical JSON: the variable exists when all of them hold.
    """

    name: str
    choices: tuple[Any, ...] = ()
    ordered: bool = False
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    when: Mapping[str, Any] = field(default_factory=dict, hash=False)
    conditions: tuple[tuple[str, frozenset[str]], ...] = ()

    @classmethod
    def from_data(cls, name: str, data: Any, where: str) -> Variable:
        """Read one entry of a study file."""
        if isinstance(data, list | tuple):
            data = {"choices": data}
        if not isinstance(data, Mapping):
            raise UsageError(where, f"neither a list nor a table: {data!r}", "write [VALUES] or {low = 1, high = 8}")
        kind = ("choices", "ordered") if "choices" in data else ("low", "high", "step", "log")
        refuse_unknown(data.keys(), (*kind, "when"), where)
        when = data.get("when", {})
        if not isinstance(when, Mapping):
            raise UsageError(f"{where}: when", f"not a table: {when!r}", "write {NAME = VALUE} or {NAME = [VALUES]}")
        made = _choice if "choices" in data else _range
        return replace(made(name, data, where), when=when)

    def bound(self, others: Mapping[str, Variable], where: str) -> Variable:
        """The same with its condition read against the variables that it names."""
        found = tuple((name, others[name].some(value, where)) for name, value in self.when.items())
        return replace(self, conditions=found)

    def some(self, data: Any, where: str) -> frozenset[str]:
        """The values meant by a value or a list of them, as canonical JSON."""
        meant = data if isinstance(data, list | tuple) and not self.holds(data) else [data]
        for value in meant:
            if not self.holds(value):
                raise UsageError(where, f"{self.name} is never {value!r}", f"it is {self.text}")
        return frozenset(canonical_json(self._own(value)) for value in meant)

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return not self.choices and all(isinstance(x, int) for x in (self.low, self.high, self.step or 1))

    @cached_property
    def levels(self) -> tuple[Any, ...] | None:
        """All its values in order; None where they are too many or continuous."""
        if self.choices:
            return self.choices
        count = self._count
        return None if count is None or count > MOST_LEVELS else tuple(self._at(i) for i in range(count))

    @property
    def _count(self) -> int | None:
        step = self.step or (1 if self.whole else None)
        return None if step is None else math.floor((self.high - self.low) / step * (1 + 1e-12) + 1e-9) + 1

    def _at(self, index: int) -> float:
        value = self.low + index * (self.step or 1)
        return value if self.whole else float(f"{value:.12g}")

    def exists(self, values: Mapping[str, Any]) -> bool:
        """Whether it exists beside these values."""
        return all(name in values and written(values[name]) in some for name, some in self.conditions)

    def holds(self, value: Any) -> bool:
        """Whether it can have this value."""
        if self.choices:
            return written(value) in self._places
        number = isinstance(value, int) if self.whole else isinstance(value, int | float)
        if isinstance(value, bool) or not number or not self.low <= value <= self.high:
            return False
        return self._count is None or math.isclose(value, self._nearest(value), rel_tol=1e-9)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {canonical_json(value): i for i, value in enumerate(self.choices)}

    def _nearest(self, value: float) -> float:
        count = self._count
        if count is None:
            return min(max(float(value), self.low), self.high)
        return self._at(min(max(round((value - self.low) / (self.step or 1)), 0), count - 1))

    def _own(self, value: Any) -> Any:
        """The value as this variable writes it: 8 for 8.0 in a range of whole numbers."""
        return value if self.choices else self._nearest(value)

    def place(self, value: Any) -> float:
        """Where a value stands: the number of its level, or its share of a continuous range."""
        if self.choices:
            return self._places[written(value)]
        return round((value - self.low) / (self.step or 1)) if self.levels else self.share(value)

    def share(self, value: Any) -> float:
        """Where between first and last a value stands, on its own scale: 0 to 1."""
        if self.choices:
            return self._places[written(value)] / max(len(self.choices) - 1, 1)
        low, high, x = (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (x - low) / (high - low) if high > low else 0.0

    def at(self, share: float) -> Any:
        """The value that stands nearest to a share of the way from the first to the last."""
        if self.choices:
            return self.choices[round(share * (len(self.choices) - 1))]
        if self.log:
            return self._nearest(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))
        return self._nearest(self.low + share * (self.high - self.low))

    @property
    def falls(self) -> bool:
        """Whether it lists numbers downwards."""
        first, last = (self.choices or (0,))[0], (self.choices or (0,))[-1]
        return bool(self.ordered and isinstance(first, int | float) and first > last)

    def sample(self, rng: np.random.Generator) -> Any:
        """A random value."""
        if self.levels is None or self.log:
            return self.at(rng.random())
        return self.levels[int(rng.integers(len(self.levels)))]

    def other(self, value: Any, rng: np.random.Generator) -> Any:
        """Another value; near the old one, where values are ordered, as often as not."""
        near = self.ordered and rng.random() < 0.5
        if self.levels is None:
            found = self.at(min(max(self.share(value) + 0.1 * rng.normal(), 0), 1)) if near else self.sample(rng)
            return found if found != value else self.sample(rng)
        place, count = int(self.place(value)), len(self.levels)
        if near:
            steps = [i for i in (place - 1, place + 1) if 0 <= i < count]
            return self.levels[steps[int(rng.integers(len(steps)))]]
        return self.levels[(place + 1 + int(rng.integers(count - 1))) % count]

    @property
    def text(self) -> str:
        """Its values, for people."""
        if self.choices:
            return "one of " + ", ".join(canonical_json(value) for value in self.choices)
        step = f" in steps of {self.step}" if self.step else ""
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high}{step}"

    @property
    def when_text(self) -> str:
        """When it exists, for people."""
        return " and ".join(f"when {name} is {' or '.join(sorted(some))}" for name, some in self.conditions)


def written(value: Any) -> str:
    """A value as canonical JSON: thousands of candidates have the same few, and are looked at one by one."""
    return _scalar(value) if isinstance(value, str | int | float) else canonical_json(value)


@lru_cache(typed=True)
def _scalar(value: str | float) -> str:
    return canonical_json(value)


def _choice(name: str, data: Mapping[str, Any], where: str) -> Variable:
    values = data["choices"]
    if not isinstance(values, list | tuple) or not values:
        raise UsageError(where, f"no choices: {values!r}", "write a list with at least one value")
    try:
        written = [canonical_json(value) for value in values]
    except (TypeError, ValueError) as error:
        raise UsageError(where, f"a choice that isn't data: {error}", "write text, numbers, lists or tables") from None
    twice = next((text for text in written if written.count(text) > 1), None)
    if twice:
        raise UsageError(where, f"{twice} stands there twice", "write each choice once")
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    ordered = data.get("ordered", numbers and sorted(values) in (list(values), list(values)[::-1]))
    if not isinstance(ordered, bool):
        raise UsageError(f"{where}: ordered", f"{ordered!r}", "write true or false")
    return Variable(name, tuple(values), ordered)


def _range(name: str, data: Mapping[str, Any], where: str) -> Variable:
    ends = {key: data[key] for key in ("low", "high", "step") if key in data}
    if not {"low", "high"} <= ends.keys():
        raise UsageError(where, "neither choices nor low and high", "write [VALUES] or {low = 1, high = 8}")
    for key, x in ends.items():
        if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
            raise UsageError(f"{where}: {key}", f"not a number: {x!r}", "write a number")
    low, high, step, log = ends["low"], ends["high"], ends.get("step"), data.get("log", False)
    if not low < high:
        raise UsageError(where, f"low = {low} isn't below high = {high}", "put the smaller one at low")
    if step is not None and not 0 < step <= high - low:
        raise UsageError(f"{where}: step", f"{step}", f"write a step above 0, at most {high - low}")
    if not isinstance(log, bool):
        raise UsageError(f"{where}: log", f"{log!r}", "write true or false")
    if log and (step is not None or low <= 0):
        raise UsageError(f"{where}: log", "a step, or an end that isn't above 0", "leave out step or log; low above 0")
    return Variable(name, (), True, low, high, step, log)
