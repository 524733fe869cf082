"""What a search over many models found: a front for each target and device, and whom the constraints leave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..devices.results import Estimate as Compared
from ..devices.results import effects
from ..devices.stats import t_interval
from . import race
from .candidate import LOCAL
from .choose import Bound
from .findings import Findings, about
from .goals import Goals
from .objectives import Estimate, mean
from .roster import ASKED, TUNED, Tried
from .trials import Trial

if TYPE_CHECKING:
    from numpy import ndarray

SURE = 0.95
UNDECIDED = "not decided against"
"""How the reason begins of a candidate that isn't proven to be surpassed."""
MOST = 6
"""Finalists of a front at most, besides the chosen one's other settings."""


@dataclass(frozen=True)
class Fronts(Findings):
    """`Findings` with the objectives and constraints of a study file.

    Attributes:
        goals: what is wanted.
        values: estimates of each trial by objective, and what is bounded: name → id → estimate.
        models: by key.
        each: of objectives that are means over examples, and of some trials, what each example gave (n,): such are
            compared over the same examples; name → id → values.
    """

    goals: Goals = field(default_factory=lambda: Goals((), (), {}, None))  # type: ignore[arg-type]
    values: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    models: Mapping[str, Tried] = field(default_factory=dict)
    each: Mapping[str, Mapping[str, ndarray]] = field(default_factory=dict)

    @cached_property
    def known(self) -> list[Trial]:
        """Trials of which all objectives are known."""
        return [t for t in self.able if all(t.id in self.values[name] for name in self.goals.names)]

    @cached_property
    def able_ids(self) -> list[str]:
        """Those of them that keep to the constraints: surely, or by point estimates at a place where none does so."""
        found = []
        for ids in self._by_place([trial.id for trial in self.known]).values():
            sure = [id for id in ids if self.sure(id)]
            found += sure or [id for id in ids if all(self._meets(b, id) for b in self.goals.bounds)]
        return found

    def sure(self, id: str) -> bool:
        """Whether a trial keeps to all constraints with a probability of `SURE`."""
        return all(self.holds(bound, id) >= SURE for bound in self.goals.bounds)

    def _meets(self, bound: Bound, id: str) -> bool:
        found = self.values[bound.name].get(id)
        return found is not None and found.meets(bound.sign, bound.limit)

    def holds(self, bound: Bound, id: str) -> float:
        """With which probability a trial keeps to a constraint."""
        found = self.values[bound.name].get(id)
        return found.probability(bound.sign, bound.limit) if found else 0.0

    @cached_property
    def fronts(self) -> dict[str, list[str]]:
        """By place the ids that no other surpasses, by point estimates, the best by the first objective first."""
        found: dict[str, list[str]] = {}
        for place, ids in self._by_place(self.able_ids).items():
            front: list[str] = []
            # In this order nobody is surpassed by one that comes later.
            for id in sorted(self._lasting(ids), key=self._costs):
                if not any(_surpasses(self._costs(other), self._costs(id)) for other in front):
                    front.append(id)
            found[place] = front
        return found

    @cached_property
    def _cost(self) -> dict[str, tuple[float, ...]]:
        """Of each trial whose objectives are known, in their order."""
        names = self.goals.names
        known = [id for id in self.trials if all(id in self.values[name] for name in names)]
        return {id: tuple(self.goals.cost(name, self.values[name][id].value) for name in names) for id in known}

    def _costs(self, id: str) -> tuple[float, ...]:
        return self._cost[id]

    def _by_place(self, ids: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for id in sorted(ids, key=lambda id: self.trials[id].candidate.device != LOCAL):
            found.setdefault(self.trials[id].candidate.place, []).append(id)
        return found

    @cached_property
    def front(self) -> list[str]:
        """Ids of all fronts."""
        return [id for ids in self.fronts.values() for id in ids]

    @property
    def finalists(self) -> list[str]:
        """Who is timed again: some of each front, evenly over it."""
        found = []
        for ids in self.fronts.values():
            n = min(MOST, len(ids))
            found += [ids[round(k * (len(ids) - 1) / max(n - 1, 1))] for k in range(n)]
        return list(dict.fromkeys(found))

    @cached_property
    def winners(self) -> dict[str, str]:
        """``best`` and each place → id of the chosen one; the best is one of this machine as it is, if any is."""
        found = {place: self._chosen(self._lasting(ids)) for place, ids in self._by_place(self.able_ids).items()}
        if found:
            here = [id for id in found.values() if self.trials[id].candidate.device == LOCAL] or list(found.values())
            found["best"] = self._chosen([id for id in here if self.sure(id)] or here)
        return found

    def _lasting(self, ids: Sequence[str]) -> list[str]:
        """Those of them that were timed again, where any were: one launch alone puts nobody on a front in the end."""
        timed = {name for launch in self.confirmed for name in launch.arms}
        return [id for id in ids if id in timed] or list(ids)

    def _chosen(self, ids: Sequence[str]) -> str:
        """The best by the first objective; of those that aren't proven worse, the best by the next, and so on."""
        left = list(ids)
        for place, name in enumerate(self.goals.names):
            best = min(left, key=lambda id: self._costs(id)[place])
            left = [id for id in left if id == best or not self.worse(name, id, best)]
        chosen = min(left, key=self._costs)
        mine = self.trials[chosen].candidate
        further = replace(mine, model=mine.model + TUNED).id
        return further if further in left else chosen  # the same graph: what differs in time or size is chance

    def worse(self, name: str, a: str, b: str) -> bool:
        """Whether `a` is proven worse than `b` by an objective: in pairs, or by intervals that don't meet."""
        if name == "latency_ms":
            times = effects(self.launches_of(a, b), b, a, "median")
            if len(times) > 1:
                return t_interval(times, race.CONFIDENCE).low > 0
        sign = 1 if self.goals.direction(name) == "min" else -1
        given = self.each.get(name, {})
        if a in given and b in given:
            found = mean(sign * (given[a] - given[b]))
            return found.low is not None and found.low > 0
        one, other = self.values[name][a], self.values[name][b]
        if one.low is None or one.high is None or other.low is None or other.high is None:
            if name == "latency_ms":  # timed once
                return math.log(one.value / other.value) > race.FAR
            return sign * (one.value - other.value) > 0
        return one.low > other.high if sign > 0 else one.high < other.low

    def decided(self, a: str, b: str) -> bool:
        """Whether `a` is proven to surpass `b`: in no objective worse by its estimate, in one of them for sure."""
        if not _surpasses(self._costs(a), self._costs(b)):
            return False
        return any(self.worse(name, b, a) for name in self.goals.names)

    @property
    def defaults(self) -> list[str]:
        """None: the models themselves are what is compared."""
        return []

    def facts(self, trial: Trial) -> dict[str, Any]:
        """Everything that can be selected by, as data."""
        known = {name: self.values[name][trial.id] for name in self.goals.all if trial.id in self.values[name]}
        values = {name: found.value for name, found in known.items()}
        intervals = {name: [found.low, found.high] for name, found in known.items() if found.low is not None}
        one = about(self.models[trial.candidate.model])
        return {**super().facts(trial), **one, "values": values, "intervals": intervals}

    def comparisons(self) -> list[Compared]:
        """The best against the chosen one of each other target on its device, from the confirmation."""
        best = self.winners.get("best")
        if not best or not self.confirmed:
            return []
        device = self.trials[best].candidate.device
        others = [id for id in dict.fromkeys(self.winners.values()) if id != best]
        others = [id for id in others if self.trials[id].candidate.device == device]
        return self._over(best, others)

    def reason(self, trial: Trial) -> str | None:
        """Why a candidate was not chosen, in words; None for the chosen."""
        if trial.status != "ok" or trial.id in self.failed or trial.id not in self.latency:
            return super().reason(trial)
        if trial.id in self.winners.values():
            return None
        missed = [b for b in self.goals.bounds if self.holds(b, trial.id) < SURE]
        if missed:
            found = self.values[missed[0].name].get(trial.id)
            return f"it has {found.value:.4g}, {ASKED}{missed[0]}" if found else f"no {missed[0].name}"
        if trial.id in self.front:
            return "on the front"
        return self._surpassed(trial)

    def _surpassed(self, trial: Trial) -> str | None:
        ids = self.fronts.get(trial.candidate.place, [])
        mine = self._cost.get(trial.id)
        if mine is None:
            return None
        above = [id for id in ids if _surpasses(self._costs(id), mine)]
        if not above:
            return None
        sure = next((id for id in above if self.decided(id, trial.id)), None)
        words = "surpassed by" if sure else UNDECIDED
        return f"{words} {self.trials[sure or above[0]].candidate.label}"


def _surpasses(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that points of two costs dominate below a reference."""
    area, edge = 0.0, reference[1]
    for x, y in sorted(points):
        if x < reference[0] and y < edge:
            area += (reference[0] - x) * (edge - y)
            edge = y
    return area
