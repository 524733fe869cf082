"""Whether inherited accuracies put candidates in the order that trainings of their own would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TRUSTED = 0.7
"""The rank correlation from which inherited accuracies may choose."""
_CONFIDENCE = 0.95
_INSTEAD = "models get short trainings of their own"
_DRAWS = 20_000


@dataclass(frozen=True)
class Fidelity:
    """Spearman's rank correlation of two rankings of the same candidates.

    Attributes:
        rho: the correlation; None where one side doesn't vary.
        low: of its 95 % interval.
        high: of its 95 % interval.
        n: candidates.
    """

    rho: float | None
    low: float
    high: float
    n: int

    @property
    def trusted(self) -> bool:
        """Whether inherited accuracies may choose."""
        return self.rho is not None and self.rho >= TRUSTED

    @property
    def text(self) -> str:
        """In words, with what follows from it."""
        if self.rho is None:
            return f"rank fidelity: unknown, {self.n} models are all alike: {_INSTEAD}"
        interval = f"95 %: {self.low:.2f} to {self.high:.2f}"
        head = f"rank fidelity: Spearman {self.rho:.2f} ({interval}) over {self.n} models"
        return f"{head}: " + ("inherited accuracies choose" if self.trusted else f"below {TRUSTED}, so {_INSTEAD}")


def fidelity(inherited: Sequence[float], alone: Sequence[float]) -> Fidelity:
    """Hold inherited accuracies against those of stand-alone trainings.

    The interval inverts the exact test of a bivariate normal's correlation, by simulation: it is honest for a handful
    of candidates, where a correlation of 1 is no proof, and the usual formulas give an interval without width.

    Args:
        inherited: of n candidates, n ≥ 3.
        alone: of the same ones.
    """
    import numpy as np
    from scipy import stats

    n = len(inherited)
    if n != len(alone) or n < 3:
        raise ValueError(f"{n} and {len(alone)} accuracies; at least 3 pairs are needed")
    if len(set(inherited)) == 1 or len(set(alone)) == 1:
        return Fidelity(None, -1.0, 1.0, n)
    rho = float(stats.spearmanr(inherited, alone).statistic)
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, _DRAWS, n))
    ranks = x.argsort(-1).argsort(-1)
    tail = (1 - _CONFIDENCE) / 2

    def beyond(true: float, above: bool) -> float:
        """How often a sample of this correlation shows one at least as far above, or below, as what was found."""
        other = (true * x + np.sqrt(1 - true**2) * noise).argsort(-1).argsort(-1)
        found = 1 - 6 * ((ranks - other) ** 2).sum(-1) / (n * (n**2 - 1))
        return float((found >= rho - 1e-9).mean() if above else (found <= rho + 1e-9).mean())

    low, high = (_crossing(lambda true, above=above: beyond(true, above) - tail, above) for above in (True, False))
    # From the normal's correlation to its Spearman.
    low, high = (float(6 / np.pi * np.arcsin(r / 2)) for r in (low, high))
    return Fidelity(rho, low, high, n)


def _crossing(excess: Any, rising: bool) -> float:
    low, high = -1.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        if (excess(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return (low + high) / 2
