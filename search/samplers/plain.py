"""Samplers that learn nothing: random, and one after the other."""

from __future__ import annotations

from ..space import Values
from .base import Sampler


class Random(Sampler):
    """Each time another candidate, at random."""

    def _suggest(self, n: int) -> list[Values]:
        return self._fresh(n, self._rng())


class Exhaustive(Sampler):
    """Every candidate once, in the space's order."""

    def _suggest(self, n: int) -> list[Values]:
        found: dict[str, Values] = {}
        for values in self.space.all():
            if len(found) == n:
                break
            if self._new(values, found):
                found[self.key(values)] = values
        return list(found.values())
