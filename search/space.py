"""A search space as frozen data: variables, when each exists, and forbidden combinations, each with its reason.

A candidate is a plain dict, name → value, of the variables that exist in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..core.config import refuse_unknown
from ..core.errors import UsageError
from ..core.ids import canonical_json, content_id
from .variable import Variable, written

if TYPE_CHECKING:
    import numpy as np

Values = dict[str, Any]
COUNTED = 200_000
"""A space of more combinations isn't counted out: its size is then a bound from above."""
TRIES = 1000


@dataclass(frozen=True)
class Forbidden:
    """A combination that must not be: all of these variables with one of their values each.

    Attributes:
        values: name and the values meant, as canonical JSON.
        reason: why, for people.
    """

    values: tuple[tuple[str, frozenset[str]], ...]
    reason: str

    def meets(self, values: Mapping[str, Any]) -> bool:
        """Whether this is such a combination."""
        return all(name in values and written(values[name]) in some for name, some in self.values)


@dataclass(frozen=True)
class Space:
    """All candidates.

    Attributes:
        variables: a variable stands behind those that its condition names.
        forbidden: in the order in which they are looked at.
    """

    variables: tuple[Variable, ...]
    forbidden: tuple[Forbidden, ...] = ()

    @classmethod
    def from_dict(
        cls, variables: Mapping[str, Any], forbidden: Sequence[Mapping[str, Any]] = (), where: str = "the space"
    ) -> Space:
        """Read a study file's dialect.

        Args:
            variables: name → a list of choices; or a table with `choices` (`ordered`), or with `low` and `high` (`step`
                or `log`); and with `when`, name → the value or values of another variable with which this one exists.
            forbidden: tables with `if`, name → the value or values, and `reason`.
            where: for errors.

        Raises:
            UsageError: what is wrong, where, and what to write.
        """
        if not isinstance(variables, Mapping) or not variables:
            raise UsageError(where, "no variables", "write each as NAME = [VALUES] or {low = 1, high = 8}")
        found = {name: Variable.from_data(name, data, f"{where}: {name}") for name, data in variables.items()}
        for variable in found.values():
            for name in variable.when:
                _known(name, found, f"{where}: {variable.name}: when")
        ordered = _in_order({name: v.bound(found, f"{where}: {name}: when") for name, v in found.items()}, where)
        rules = [_forbidden(data, found, f"{where}: forbidden {i}") for i, data in enumerate(forbidden, 1)]
        space = cls(tuple(ordered), tuple(rules))
        if space.size == 0:
            raise UsageError(where, "the forbidden combinations leave no candidate", "forbid less")
        return space

    @cached_property
    def size(self) -> int | None:
        """How many candidates; None where a range is continuous; beyond `COUNTED` combinations a bound from above."""
        bound = 1
        for variable in self.variables:
            if variable.levels is None:
                return None
            bound *= len(variable.levels) + bool(variable.conditions)
        whole = not self.forbidden and not any(variable.conditions for variable in self.variables)
        return bound if whole or bound > COUNTED else sum(1 for _ in self.all())

    def all(self) -> Iterator[Values]:
        """Every candidate, in an order that stays the same.

        Raises:
            UsageError: there are infinitely many.
        """
        yield from self._from(0, {})

    def _from(self, index: int, values: Values) -> Iterator[Values]:
        if index == len(self.variables):
            if self.why_forbidden(values) is None:
                yield dict(values)
            return
        variable = self.variables[index]
        if not variable.exists(values):
            yield from self._from(index + 1, values)
            return
        if variable.levels is None:
            raise UsageError(f"all candidates of the space: {variable.name}", "a continuous range", "give it a step")
        for value in variable.levels:
            yield from self._from(index + 1, values | {variable.name: value})

    def sample(self, rng: np.random.Generator) -> Values:
        """A random candidate: each variable uniform over its values, or over its range.

        Raises:
            UsageError: nearly all combinations are forbidden.
        """
        for _ in range(TRIES):
            values = self._repaired({}, rng)
            if self.why_forbidden(values) is None:
                return values
        if self.size is not None and self.size <= COUNTED:
            return next(islice(self.all(), int(rng.integers(self.size)), None))
        raise UsageError("a random candidate of the space", f"{TRIES} draws were all forbidden", "forbid less")

    def mutate(self, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """A neighbour: one variable has another value, sometimes more; what its condition adds is drawn."""
        free = [v for v in self.variables if v.name in values and (v.levels is None or len(v.levels) > 1)]
        for _ in range(TRIES if free else 0):
            first = int(rng.integers(len(free)))
            changed = [v for i, v in enumerate(free) if i == first or rng.random() < 0.5 / len(free)]
            found = self._repaired(dict(values) | {v.name: v.other(values[v.name], rng) for v in changed}, rng)
            if self.why_forbidden(found) is None and found != values:
                return found
        return self.sample(rng)

    def _repaired(self, values: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """Variables that exist get a value where they have none; those that don't exist lose theirs."""
        found: Values = {}
        for variable in self.variables:
            if variable.exists(found):
                name = variable.name
                found[name] = values[name] if name in values else variable.sample(rng)
        return found

    def why_forbidden(self, values: Mapping[str, Any]) -> str | None:
        """The reason of the first forbidden combination in these values."""
        return next((rule.reason for rule in self.forbidden if rule.meets(values)), None)

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse what isn't a candidate of this space.

        Raises:
            UsageError: a variable that isn't known, is missing or doesn't exist here; a value that isn't allowed; or a
                forbidden combination, with its reason.
        """
        where = f"the candidate {canonical_json(dict(values))}"
        refuse_unknown(values.keys(), [v.name for v in self.variables], where)
        for variable in self.variables:
            exists = variable.exists(values)
            if exists and variable.name not in values:
                raise UsageError(where, f"{variable.name} is missing", f"give it {variable.text}")
            if not exists and variable.name in values:
                raise UsageError(where, f"{variable.name} doesn't exist here", f"it exists {variable.when_text}")
            if exists and not variable.holds(values[variable.name]):
                found = f"{variable.name} = {canonical_json(values[variable.name])}"
                raise UsageError(where, found, f"give it {variable.text}")
        reason = self.why_forbidden(values)
        if reason:
            raise UsageError(where, f"forbidden: {reason}", "change one of its values")


def values_id(values: Mapping[str, Any]) -> str:
    """The id of a candidate: the same values have the same, everywhere."""
    return content_id(dict(values))


def _known(name: str, found: Mapping[str, Variable], where: str) -> None:
    if name not in found:
        raise UsageError(where, f"no variable {name!r}", f"one of: {', '.join(found)}")


def _in_order(found: Mapping[str, Variable], where: str) -> list[Variable]:
    """Each behind those that its condition names; else as they came."""
    done: dict[str, Variable] = {}
    while len(done) < len(found):
        ready = [v for v in found.values() if v.name not in done and all(name in done for name, _ in v.conditions)]
        if not ready:
            circle = ", ".join(name for name in found if name not in done)
            raise UsageError(f"{where}: when", f"a circle among {circle}", "take one of these conditions out")
        done[ready[0].name] = ready[0]
    return list(done.values())


def _forbidden(data: Any, found: Mapping[str, Variable], where: str) -> Forbidden:
    shape = 'write {if = {NAME = VALUE, ...}, reason = "..."}'
    if not isinstance(data, Mapping):
        raise UsageError(where, f"not a table: {data!r}", shape)
    refuse_unknown(data.keys(), ("if", "reason"), where)
    rule, reason = data.get("if"), data.get("reason")
    if not isinstance(rule, Mapping) or not rule:
        raise UsageError(where, "no `if` with at least one variable", shape)
    if not isinstance(reason, str) or not reason.strip():
        raise UsageError(where, "no reason", shape)
    for name in rule:
        _known(name, found, where)
    return Forbidden(tuple((name, found[name].some(value, where)) for name, value in rule.items()), reason)
