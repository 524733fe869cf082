"""How a search over many models gets on, a line for each of them: what it was, the fronts, failures, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .candidate import key_text
from .goals import Goals
from .objectives import BUILT_IN

if TYPE_CHECKING:
    from .candidate import Candidate
    from .roster import Tried
    from .samplers.base import Known
    from .space import Values

Costs = tuple[float, ...]


class Lasting(str):
    """A line that stays on a terminal where others are overwritten by the next step."""

    lasting = True


class Progress:
    """What came so far.

    Args:
        goals: of the study.
        evaluations: models at most.
        minutes: after so many no other model is begun.
        clock: in seconds.
    """

    def __init__(
        self, goals: Goals, evaluations: int, minutes: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.goals, self.evaluations, self.minutes, self.clock = goals, evaluations, minutes, clock
        self.count, self.failed = 0, 0
        self.fronts: dict[str, list[tuple[Costs, str]]] = {}
        self.best: tuple[Costs, str] | None = None
        self._begun: tuple[float, int] | None = None

    def begin(self) -> None:
        """From now on models are evaluated; those that came before took no time of this run."""
        self._begun = self.clock(), self.count

    def line(self, one: Tried, known: Sequence[tuple[Candidate, Known | None]]) -> Lasting:
        """Take in a model, with what samplers know of its deployments, and say how things stand."""
        self.count += 1
        head = f"model {self.count} of {self.evaluations}"
        if one.status != "ok":
            self.failed += 1
            return Lasting("; ".join([f"{head} failed: {one.reason}", *self._standing()]))
        for candidate, fact in known:
            self._add(candidate, one.model, fact)
        words = [text_of(one.values)]
        words += [f"accuracy {one.accuracy:.1%}"] if one.accuracy is not None else []
        fastest = min((c for c, _ in known if c.id in one.times), key=lambda c: one.times[c.id], default=None)
        words.append(f"{fastest.place} {fastest.precision} {one.times[fastest.id]:.4g} ms" if fastest else "not timed")
        on = [place for place, front in self.fronts.items() if any(model == one.model for _, model in front)]
        words += [f"on the front of {', '.join(on)}"] if on else []
        return Lasting("; ".join([f"{head}: {', '.join(words)}", *self._standing()]))

    def _add(self, candidate: Candidate, model: str, fact: Known | None) -> None:
        bounds = self.goals.limits
        if fact is None or fact.failed or any(name not in fact.costs for name in self.goals.all):
            return
        if any(fact.costs[name] > most for name, most in bounds.items()):
            return
        costs = tuple(fact.costs[name] for name in self.goals.names)
        front = self.fronts.setdefault(candidate.place, [])
        if not any(_no_worse(other, costs) for other, _ in front):
            front[:] = [each for each in front if not _no_worse(costs, each[0])] + [(costs, model)]
        if self.best is None or costs < self.best[0]:
            self.best = costs, f"{key_text(model)} {candidate.place} {candidate.precision}"

    def _standing(self) -> list[str]:
        words = []
        if self.best:
            words.append(f"best {self.goals.names[0]} {self._value(self.best[0][0])} ({self.best[1]})")
            words.append("fronts " + " + ".join(str(len(front)) for front in self.fronts.values()))
        words.append(f"{self.failed} failed")
        left = self.minutes_left()
        return [*words, f"about {max(left, 1):.0f} min to the last model"] if left else words

    def _value(self, cost: float) -> str:
        """The first objective's value from what is minimised."""
        name = self.goals.names[0]
        share = name in BUILT_IN and BUILT_IN[name].unit == "share"
        if self.goals.direction(name) == "max":
            cost = 1 - cost if share else -cost
        return f"{cost:.1%}" if share else f"{cost:.4g}"

    def minutes_left(self) -> float | None:
        """Until the last model is evaluated, by the mean so far; None before this run has evaluated one."""
        if self._begun is None or self.count == self._begun[1]:
            return None
        took = (self.clock() - self._begun[0]) / 60
        left = took / (self.count - self._begun[1]) * max(self.evaluations - self.count, 0)
        return left if self.minutes is None else min(left, max(self.minutes - took, 0.0))


def _no_worse(a: Costs, b: Costs) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def text_of(values: Values) -> str:
    """Values for people."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
