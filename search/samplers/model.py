"""Our default: a Gaussian process for each cost, and the candidate of which the front gains most in expectation.

A failure and a bound count by their probabilities. Nothing is kept but what was told: the processes are learned again
at certain numbers of told candidates, from those alone, so that a sampler that is told all again is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from ..space import Values
from .base import Sampler
from .codes import Array, Codes
from .gp import Inputs, Process, Weights, fit
from .improve import boxes, expected, front

STARTS = 5
"""Evaluations before anything is learned."""
SHARES = (1.0, 0.0, 0.5, 0.25, 0.75)
"""Where the starts stand, one after the other, in the range of every ordered variable: costs mostly grow along that
diagonal, so that the first ones already span a front."""
DRAWN = 30
POOL = 400
"""Random candidates of the pool, and as many neighbours of the front."""
CLIMBS, CLIMBED, STEPS = 2, 10, 20
"""Rounds in which the best of the pool are changed further, how many of them, and into how many each."""
ENUMERATED = 1500
"""A space of so few candidates is its own pool."""
MOST, MOST_CHEAP = 500, 250
"""So many told candidates are used at most: those near the front, and some of all others; of what can be looked up
fewer."""
MOST_FIT = 200
BEYOND = 0.4
"""Costs above the median are compressed into this much of the range below it: how bad they are tells little."""
CHEAP_SCALE = 2.0
"""Of cheap costs as inputs of the others."""
DOUBT = 0.5
"""Share of the standard deviation of dear costs that counts once the cheap ones are known. How good a cost can be has
an end that a normal distribution lacks; where nothing else is uncertain, what is cheapest and least known would always
promise most."""
FAILED = "failed"


@dataclass(frozen=True)
class Learned:
    """One cost: its process, and what it stands for.

    Attributes:
        process: over standardised values.
        centre: of the values, after `scale` and `knee`.
        spread: of the same.
        fitted: told values, as weighed, with the noise of measuring taken out as far as can be told.
    """

    process: Process
    centre: float
    spread: float
    fitted: dict[str, float]

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Mean and standard deviation of the values as weighed."""
        mean, deviation = self.process.predict(inputs)
        return self.centre + self.spread * mean, self.spread * deviation


class Model(Sampler):
    """See the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._codes = Codes(self.space)
        self._rows: dict[str, Array] = {}
        self._order: dict[str, dict[str, None]] = {name: {} for name in (*self.names, FAILED)}
        self._version: dict[str, int] = dict.fromkeys(self._order, 0)
        self._learned: dict[str, tuple[int, Learned]] = {}
        self._weights: dict[str, tuple[Array, Array, Weights]] = {}
        self._all: Array | None = None
        self._boxes: tuple[tuple[int, ...], tuple[Array, Array]] | None = None
        self._even = self._inputs(self._codes.random(200, np.random.default_rng(self.seed)))

    def _take_in(self, key: str) -> None:
        fact = self.known[key]
        if key not in self._rows:
            self._rows[key] = self._codes.encode(fact.values)
        for name in (*fact.costs, *([FAILED] if self._done(fact) else [])):
            self._order[name][key] = None
            self._version[name] += 1

    # What was learned

    def _inputs(self, rows: Array) -> Inputs:
        return Inputs(self._codes.labels(rows), self._codes.numbers(rows))

    def _learn(self, name: str) -> Learned:
        version, learned = self._learned.get(name, (-1, None))
        if version != self._version[name] or learned is None:
            learned = self._learn_anew(name)
            self._learned[name] = (self._version[name], learned)
        return learned

    def _learn_anew(self, name: str) -> Learned:
        keys = list(self._order[name])
        first = keys[: _milestone(len(keys))]
        weights = self._weights_of(name, first)
        weighed, noise = self._weighed(name, keys)
        used = self._used(keys, weighed, MOST_CHEAP if name in self.cheap else MOST)
        y, errors = weighed[used], noise[used]
        centre, spread = float(y.mean()), float(y.std()) or 1.0
        inputs = self._told_inputs(name, [keys[i] for i in used])
        process = Process(weights, inputs, (y - centre) / spread, (errors / spread) ** 2)
        fitted = dict(zip(keys, weighed.tolist(), strict=True))
        fitted |= {keys[i]: centre + spread * x for i, x in zip(used, process.fitted.tolist(), strict=True)}
        return Learned(process, centre, spread, fitted)

    def _weights_of(self, name: str, keys: Sequence[str]) -> Weights:
        """Learned from the first told ones alone: the same, however many were told since."""
        weighed, noise = self._weighed(name, keys)
        used = self._used(keys, weighed, MOST_FIT)
        y, errors = weighed[used], noise[used]
        inputs = self._told_inputs(name, [keys[i] for i in used])
        known = self._weights.get(name)
        if known is None or not (np.array_equal(known[0], y) and np.array_equal(known[1], inputs.numbers)):
            spread = float(y.std()) or 1.0
            weights = fit(inputs, (y - y.mean()) / spread, (errors / spread) ** 2)
            self._weights[name] = known = (y, inputs.numbers, weights)
        return known[2]

    def _told_inputs(self, name: str, keys: Sequence[str]) -> Inputs:
        """Inputs of one cost's process: of a dear one's, the cheap costs too, foreseen where they aren't told."""
        inputs = self._inputs(np.array([self._rows[key] for key in keys]))
        if name in self.cheap or name == FAILED:
            return inputs
        costs: dict[str, Array] = {}
        for cheap in sorted(self.cheap):
            told = [i for i, key in enumerate(keys) if cheap in self.known[key].costs]
            costs[cheap] = np.zeros(len(keys)) if len(told) == len(keys) else self._learn(cheap).predict(inputs)[0]
            costs[cheap][told] = self._weighed(cheap, [keys[i] for i in told])[0]
        return self._beside(inputs, costs)

    def _beside(self, inputs: Inputs, costs: Mapping[str, Array]) -> Inputs:
        """Inputs with the cheap costs as numbers: how a candidate does depends much on how large it is."""
        if not self.cheap:
            return inputs
        columns = [CHEAP_SCALE * costs[name] / self._unit(name) for name in sorted(self.cheap)]
        return Inputs(inputs.labels, np.column_stack([inputs.numbers, *columns]))

    def _unit(self, name: str) -> float:
        """Of a cheap cost as an input: e-fold, or the standard deviation of the first ones that were told."""
        if name in self.log:
            return 1.0
        first = list(self._order[name])[:MOST_FIT]
        return float(np.std([self.known[key].costs[name] for key in first])) or 1.0

    def _weighed(self, name: str, keys: Sequence[str]) -> tuple[Array, Array]:
        """Told values as weighed, and their standard errors: logarithms, or dear ones compressed beyond the median."""
        facts = [self.known[key] for key in keys]
        if name == FAILED:
            return np.array([float(fact.failed) for fact in facts]), np.zeros(len(facts))
        costs = np.array([fact.costs[name] for fact in facts])
        errors = np.array([fact.errors[name] for fact in facts])
        if name in self.log:
            return np.log(costs), errors / costs
        if name in self.cheap:
            return costs, errors
        knee, scale = self._knee(name, costs)
        beyond = np.maximum(costs - knee, 0) / (BEYOND * scale)
        return np.minimum(costs, knee) + BEYOND * scale * beyond / (1 + beyond), errors / (1 + beyond) ** 2

    def _knee(self, name: str, costs: Array) -> tuple[float, float]:
        """From where on a cost is compressed, and how fast."""
        knee = max(float(np.median(costs)), self.bounds.get(name, -np.inf))
        return knee, knee - float(costs.min()) or 1.0

    def _bound(self, name: str) -> float:
        """A bound on the scale of weighed costs: it isn't compressed."""
        return float(np.log(self.bounds[name])) if name in self.log else self.bounds[name]

    def _used(self, keys: Sequence[str], weighed: Array, most: int) -> NDArray[np.intp]:
        """The best half by this cost and by nearness to the front, and evenly some of the others."""
        n = len(keys)
        if n <= most:
            return np.arange(n)
        best = np.argsort(weighed, kind="stable")[: most // 2]
        others = np.setdiff1d(np.arange(n), best)
        even = others[np.linspace(0, len(others) - 1, most - len(best)).astype(int)]
        return np.sort(np.concatenate([best, even]))

    # What it is worth

    def _points(self) -> tuple[list[str], Array]:
        """Candidates that are complete and feasible, and their objectives as weighed."""
        fitted = {name: self._learn(name).fitted for name in self.names}
        keys = [key for key, fact in self.known.items() if self._done(fact) and not fact.failed]
        bounds = {name: self._bound(name) for name in self.bounds}
        keys = [key for key in keys if all(fitted[name][key] <= bound for name, bound in bounds.items())]
        points = np.array([[fitted[name][key] for name in self.objectives] for key in keys])
        return keys, points.reshape(len(keys), len(self.objectives))

    def _free(self) -> tuple[Array, Array]:
        """What no told point dominates, in boxes."""
        state = tuple(self._version.values())
        if self._boxes is None or self._boxes[0] != state:
            self._boxes = state, boxes(self._points()[1], self._reference())
        return self._boxes[1]

    def _worth(self, rows: Array, keys: Sequence[str] = ()) -> Array:
        """Logarithm of the expected gain of each row; told costs of `keys`, where given, are used."""
        inputs = self._inputs(rows)
        found = self._foreseen(inputs, keys)
        mean, deviation = (np.array([found[name][i] for name in self.objectives]).T for i in (0, 1))
        worth = np.asarray(np.log(expected(mean, deviation, *self._free()) + 1e-300))
        for name in set(self.bounds) - set(self.objectives):
            worth += log_ndtr((self._bound(name) - found[name][0]) / np.maximum(found[name][1], 1e-9))
        if any(fact.failed for fact in self.known.values()):
            chance = self._learn(FAILED).predict(inputs)
            worth += log_ndtr((0.5 - chance[0]) / chance[1])
        return worth

    def _foreseen(self, inputs: Inputs, keys: Sequence[str] = ()) -> dict[str, tuple[Array, Array]]:
        """Mean and standard deviation of each cost; told cheap costs of `keys`, where given, are used."""
        found = {}
        for name in sorted(self.cheap):
            learned = self._learn(name)
            told = np.array([learned.fitted[key] for key in keys]), np.zeros(len(keys))
            found[name] = told if keys else learned.predict(inputs)
        more = self._beside(inputs, {name: cost for name, (cost, _) in found.items()})
        for name in self.names:
            if name not in self.cheap:
                mean, deviation = self._learn(name).predict(more)
                found[name] = mean, deviation * (DOUBT if self.cheap else 1.0)
        return found

    def _reference(self) -> Array:
        """Beyond which nothing is gained: what the space's median has; of a bounded objective, the bound."""
        found = []
        foreseen = self._foreseen(self._even)
        for name in self.objectives:
            reference = float(np.quantile(foreseen[name][0], QUANTILE_LOG if name in self.log else QUANTILE))
            found.append(min(reference, self._bound(name)) if name in self.bounds else reference)
        return np.array(found)

    # What is suggested

    @property
    def _starting(self) -> bool:
        return sum(self._done(fact) and not fact.failed for fact in self.known.values()) < STARTS

    def _pick(self, ready: Sequence[str]) -> str | None:
        if self._starting:
            return ready[int(self._begins(np.array([self._rows[key] for key in ready])).argmax())]
        worth = self._worth(np.array([self._rows[key] for key in ready]), ready)
        return ready[int(worth.argmax())] if worth.max() > -600 else None

    def _suggest(self, n: int) -> list[Values]:
        rng = self._rng()
        rows, worth = self._first(rng) if self._starting else self._pool(rng)
        found: dict[str, Values] = {}
        for i in np.argsort(-worth, kind="stable"):
            values = self._codes.decode(rows[i])
            if self._new(values, found):
                found[self.key(values)] = values
                if len(found) == n:
                    break
        return [*found.values(), *self._fresh(n - len(found), rng, found)]

    def _first(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Candidates to start with: ordered variables stand at the next of `SHARES`, the others are drawn."""
        rows = self._codes.random(DRAWN, rng)
        found = np.concatenate([self._codes.along(rows, self._share, rng), rows])
        return found, self._begins(found)

    def _begins(self, rows: Array) -> Array:
        """The nearer to where the next start is to stand the better; then the farther from those evaluated."""
        off = self._codes.off(rows, self._share)
        return np.asarray(self._apart(rows) - 1000 * off)

    @property
    def _share(self) -> float:
        """The first at which nothing that was evaluated stands."""
        done = np.array([self._rows[key] for key, fact in self.known.items() if self._done(fact)])
        left = [share for share in SHARES if not len(done) or self._codes.off(done, share).min() > 0]
        return left[0] if left else SHARES[-1]

    def _apart(self, rows: Array) -> Array:
        """How much each row differs at least from what was evaluated."""
        done = [self._rows[key] for key, fact in self.known.items() if self._done(fact)]
        if not done:
            return np.zeros(len(rows))
        mine, theirs = self._inputs(rows), self._inputs(np.array(done))
        labels = (mine.labels[:, None] != theirs.labels[None]).sum(axis=2)
        return np.asarray((labels + np.abs(mine.numbers[:, None] - theirs.numbers[None]).sum(axis=2)).min(axis=1))

    def _pool(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Candidates and their worth: random ones, neighbours of the front, neighbours of the best of both."""
        size = self.space.size
        if size is not None and size <= ENUMERATED:
            if self._all is None:
                self._all = np.array([self._codes.encode(values) for values in self.space.all()])
            return self._all, self._worth(self._all)
        rows = np.concatenate([self._codes.random(POOL, rng), self._codes.mutate(self._parents(rng), rng)])
        worth = self._worth(rows)
        for _ in range(CLIMBS):
            best = np.argsort(-worth, kind="stable")[:CLIMBED]
            more = self._codes.mutate(np.repeat(rows[best], STEPS, axis=0), rng)
            rows, worth = np.concatenate([rows, more]), np.concatenate([worth, self._worth(more)])
        return rows, worth

    def _parents(self, rng: np.random.Generator) -> Array:
        """Rows of the front, each about equally often; while nothing is feasible, of all that was told."""
        keys, points = self._points()
        if len(keys):
            on = {tuple(point) for point in front(points)}
            keys = [key for key, point in zip(keys, points, strict=True) if tuple(point) in on]
        keys = keys or list(self.known)
        return np.array([self._rows[keys[i]] for i in rng.integers(len(keys), size=POOL)])


QUANTILE, QUANTILE_LOG = 0.5, 0.9


def _milestone(n: int) -> int:
    """The last number of told candidates, at most n, at which the weights are learned."""
    m = 2
    while m + max(1, m // 6) <= n:
        m += max(1, m // 6)
    return min(m, n)
