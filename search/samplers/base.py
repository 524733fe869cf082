"""What all samplers share: the ask/tell contract, what was told, what may not be suggested, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...core.ids import canonical_json
from ..space import COUNTED, Space, Values, values_id

if TYPE_CHECKING:
    import numpy as np

DRAWS = 300
"""Draws without a new candidate after which a space is looked through, or given up."""
GIVE_UP = 200
"""So many candidates, none of them feasible, and none nearer than before among the second half of them: impossible."""


@dataclass
class Known:
    """What was told of a candidate.

    Attributes:
        values: of the first candidate with this key.
        costs: name → mean.
        errors: name → standard error of that mean; 0 where none was told.
        failed: whether it could not be evaluated.
    """

    values: Values
    costs: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True)
class Nearest:
    """The candidate nearest to feasible, and what keeps it from being so.

    Attributes:
        values: of the candidate.
        costs: all that is known of it.
        binds: the bounded cost that is missed most, relative to its bound.
        bound: of that cost.
        found: that cost.
    """

    values: Values
    costs: Mapping[str, float]
    binds: str
    bound: float
    found: float


class Sampler:
    """Suggests candidates of a space.

    What it suggests follows from its arguments and from what was told, in that order: tell all again, and a new one
    goes on as the old one would have. Costs are minimised.

    Args:
        space: to search.
        objectives: names of costs to minimise.
        bounds: name of a cost, an objective or another → the most that it may be.
        cheap: names of costs that can be looked up before the others; see `propose`.
        log: names of costs that are above 0 and weighed by their logarithm, such as times.
        key: what a candidate builds; candidates with an equal key are one. Called for few. Its values if not given.
        seed: of all randomness.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[str],
        *,
        bounds: Mapping[str, float] | None = None,
        cheap: Collection[str] = (),
        log: Collection[str] = (),
        key: Callable[[Values], str] | None = None,
        seed: int = 0,
    ) -> None:
        self.space, self.seed = space, seed
        self.objectives, self.bounds = tuple(objectives), dict(bounds or {})
        self.names = tuple(dict.fromkeys([*objectives, *self.bounds]))
        self.cheap, self.log = frozenset(cheap), frozenset(log)
        self.known: dict[str, Known] = {}
        self.told = 0
        self._key = key or values_id
        self._keys: dict[str, str] = {}
        self._pending: set[str] = set()
        self._check_names()

    def _check_names(self) -> None:
        where = "a sampler"
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise UsageError(where, f"objectives: {list(self.objectives)}", "name at least one, each once")
        for name in sorted((self.cheap | self.log) - set(self.names)):
            raise UsageError(where, f"{name!r} is no cost of it", f"one of: {', '.join(self.names)}")
        if self.cheap >= set(self.names):
            raise UsageError(where, "all costs are cheap", "leave `cheap` out")

    def key(self, values: Mapping[str, Any]) -> str:
        """What the candidate builds."""
        text = canonical_json(dict(values))
        if text not in self._keys:
            self._keys[text] = self._key(dict(values))
        return self._keys[text]

    def tell(
        self,
        values: Mapping[str, Any],
        costs: Mapping[str, float] | None = None,
        errors: Mapping[str, float] | None = None,
        failed: bool = False,
    ) -> None:
        """Take in what was found, all of a candidate's costs or some; what is told again takes the place of the old.

        Args:
            values: of the candidate, suggested or not.
            costs: name → mean.
            errors: name → standard error of that mean.
            failed: it could not be evaluated: it isn't suggested again.

        Raises:
            UsageError: no candidate of the space, a cost that isn't known, or not a number.
        """
        self.space.check(values)
        costs, errors = costs or {}, errors or {}
        for name, cost in [*costs.items(), *errors.items()]:
            if name not in self.names:
                raise UsageError(f"the cost {name!r}", "it is none of this sampler", f"one of: {', '.join(self.names)}")
            if not math.isfinite(cost) or (name in self.log and name in costs and costs[name] <= 0):
                raise UsageError(f"the cost {name!r}", f"{cost}", "tell the candidate as failed")
        key = self.key(values)
        fact = self.known.setdefault(key, Known(dict(values)))
        fact.costs |= costs
        fact.errors |= {name: errors.get(name, 0.0) for name in costs}
        fact.failed |= failed
        self._pending.discard(key)
        self.told += 1
        self._take_in(key)

    def take(self, values: Mapping[str, Any]) -> None:
        """Somebody evaluates this one: it isn't suggested until it is told."""
        self._pending.add(self.key(values))

    def release(self, values: Mapping[str, Any]) -> None:
        """Nobody evaluates this one any more, told or not: it may be suggested again."""
        self._pending.discard(self.key(values))

    def ask(self) -> Values | None:
        """The next candidate to evaluate; None where none is left, or what is bounded is out of reach.

        Where cheap costs are told, it is one of those that have them, never one that is infeasible or dominated by
        them; without any such, one whose cheap costs aren't known yet.
        """
        if self.impossible:
            return None
        ready = [key for key, fact in self.known.items() if self._is_ready(key, fact)] if self.cheap else []
        chosen = self._pick(ready) if ready else None
        found = self.known[chosen].values if chosen else next(iter(self._suggest(1)), None)
        if found is not None:
            self.take(found)
        return found

    def propose(self, n: int) -> list[Values]:
        """Up to n candidates, the most promising first, whose cheap costs are to be looked up and told next."""
        return [] if self.impossible else self._suggest(n)

    @property
    def impossible(self) -> bool:
        """Whether it has given up: nothing is feasible, and it comes no nearer."""
        facts = [fact for fact in self.known.values() if self._judged(fact)]
        if not self.bounds or len(facts) < GIVE_UP:
            return False
        missed = [max(self._missed(fact).values()) for fact in facts]
        return min(missed) > 0 and min(missed[: len(missed) // 2]) <= min(missed)

    @property
    def nearest(self) -> Nearest | None:
        """Where nothing that was told is feasible, what comes nearest."""
        facts = [fact for fact in self.known.values() if self._judged(fact)]
        if not facts or not self.bounds:
            return None
        best = min(facts, key=lambda fact: max(self._missed(fact).values()))
        missed = self._missed(best)
        binds = max(missed, key=lambda name: missed[name])
        if missed[binds] <= 0:
            return None
        return Nearest(best.values, dict(best.costs), binds, self.bounds[binds], best.costs[binds])

    def _judged(self, fact: Known) -> bool:
        """Whether it has a cost that is bounded."""
        return any(name in fact.costs for name in self.bounds)

    def _missed(self, fact: Known) -> dict[str, float]:
        """How far beyond its bound each known cost is, relative to the bound; below 0 = within."""
        known = {name: bound for name, bound in self.bounds.items() if name in fact.costs}
        return {name: (fact.costs[name] - bound) / (abs(bound) or 1.0) for name, bound in known.items()}

    def _done(self, fact: Known) -> bool:
        return fact.failed or all(name in fact.costs for name in self.names)

    def _feasible(self, fact: Known) -> bool:
        return all(missed <= 0 for missed in self._missed(fact).values())

    def _is_ready(self, key: str, fact: Known) -> bool:
        """Its cheap costs are known and leave it a chance, and its others are not."""
        if self._done(fact) or key in self._pending or not self.cheap <= fact.costs.keys():
            return False
        return self._feasible(fact) and not (self.cheap >= set(self.objectives) and self._dominated(fact))

    def _dominated(self, fact: Known) -> bool:
        mine = [fact.costs[name] for name in self.objectives]
        for other in self.known.values():
            if other is not fact and self._done(other) and not other.failed and self._feasible(other):
                theirs = [other.costs[name] for name in self.objectives]
                if theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)):
                    return True
        return False

    def _new(self, values: Values, but: Collection[str] = ()) -> bool:
        """Whether nothing is known of it, nobody evaluates it, and it isn't among some other keys."""
        key = self.key(values)
        return key not in self.known and key not in self._pending and key not in but

    def _rng(self) -> np.random.Generator:
        """The same after the same was told, and while the same is pending."""
        import numpy as np

        return np.random.default_rng([self.seed, self.told, len(self._pending)])

    def _fresh(self, n: int, rng: np.random.Generator, but: Collection[str] = ()) -> list[Values]:
        """Up to n new random candidates of different keys; fewer only where the space has no more."""
        found: dict[str, Values] = {}
        draws = 0
        while len(found) < n and draws < DRAWS:
            values = self.space.sample(rng)
            draws += 1
            if self._new(values, {*but, *found}):
                found[self.key(values)] = values
                draws = 0
        if len(found) < n and self.space.size is not None and self.space.size <= COUNTED:
            for values in self.space.all():
                if len(found) < n and self._new(values, {*but, *found}):
                    found[self.key(values)] = values
        return list(found.values())

    def _take_in(self, key: str) -> None:
        """For samplers that keep more than `known`: called after each tell."""

    def _pick(self, ready: Sequence[str]) -> str | None:
        """Which of the candidates with known cheap costs to evaluate."""
        return ready[0]

    def _suggest(self, n: int) -> list[Values]:
        """Up to n new candidates, the best first."""
        raise NotImplementedError
