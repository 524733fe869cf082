"""The slow end of a latency: percentiles with the samples that they need, and the share beyond a deadline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ..core.errors import UsageError
from .stats import Interval

ALPHA = 0.01
"""Of a wrong word about a deadline, over all arms of one bench together."""


@dataclass(frozen=True)
class Percentile:
    """One percentile over all samples; `ms` is None where there are fewer samples than it needs."""

    percent: float
    ms: float | None
    needed: int
    samples: int


@dataclass(frozen=True)
class Late:
    """The share of inferences that took longer than a deadline.

    Attributes:
        share: with its interval over launches.
        late: how many, of `samples`.
        allowed: the share that may.
    """

    deadline_ms: float
    share: Interval
    late: int
    samples: int
    allowed: float

    @property
    def verdict(self) -> str:
        """``LATE`` or ``ON TIME`` where it is proven, else ``INCONCLUSIVE``."""
        if self.share.low > self.allowed:
            return "LATE"
        return "ON TIME" if self.share.high < self.allowed else "INCONCLUSIVE"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "share": self.share.to_dict(), "verdict": self.verdict}


@dataclass(frozen=True)
class Tails:
    """What is asked of the slow end."""

    deadline_ms: float | None = None
    allowed: float = 0.01
    percents: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise UsageError(f"a deadline of {self.deadline_ms:g} ms", "not above 0", "give one such as 33ms")
        if not 0 <= self.allowed < 1:
            raise UsageError(f"a share of {self.allowed:g} that may be late", "not from 0 to 1", "give one such as 1%")
        for percent in self.percents:
            if not 0 < percent <= 99.999:
                raise UsageError(f"percentile {percent:g}", "not above 0 and up to 99.999", "give some as 50,99,99.9")

    def of(self, launches_ns: Sequence[Sequence[float]], arms: int) -> dict[str, Any]:
        """``percentiles`` and ``late`` of one of so many arms, from the samples of each of its launches."""
        pooled = [ns for samples in launches_ns for ns in samples]
        found: dict[str, Any] = {"percentiles": tuple(percentiles(pooled, self.percents))}
        if self.deadline_ms is not None:
            found["late"] = late(launches_ns, self.deadline_ms, self.allowed, 1 - 2 * ALPHA / arms)
        return found


@cache
def samples_needed(percent: float) -> int:
    """The fewest samples of which the second largest lies above the true percentile, in 99 of 100 cases.

    662 for the 99th. It takes samples to be independent, which iterations of one process aren't quite.
    """
    from scipy.special import bdtr

    beyond = 1 - percent / 100
    low, high = 1, 2
    while float(bdtr(1, high, beyond)) > 0.01:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if float(bdtr(1, middle, beyond)) <= 0.01 else (middle, high)
    return high


def percentiles(samples_ns: Sequence[float], percents: Sequence[float]) -> list[Percentile]:
    """Those percentiles of all samples, in ms, each only where there are enough."""
    import numpy as np

    ms, found = np.asarray(samples_ns, dtype=float) / 1e6, []
    for percent in percents:
        needed = samples_needed(percent)
        value = float(np.quantile(ms, percent / 100)) if len(ms) >= needed else None
        found.append(Percentile(percent, value, needed, len(ms)))
    return found


def late(launches_ns: Sequence[Sequence[float]], deadline_ms: float, allowed: float, confidence: float) -> Late:
    """The share beyond a deadline, from the samples of each launch."""
    import numpy as np

    counts = [int((np.asarray(samples) / 1e6 > deadline_ms).sum()) for samples in launches_ns]
    sizes = [len(samples) for samples in launches_ns]
    return Late(deadline_ms, share_over_launches(counts, sizes, confidence), sum(counts), sum(sizes), allowed)


def share_over_launches(counts: Sequence[int], sizes: Sequence[int], confidence: float) -> Interval:
    """A share whose samples come in launches, with the interval of Korn and Graubard.

    It is Clopper and Pearson's for the number of independent samples that would scatter as the launches do: p(1-p)
    over the variance of the share between launches, at most all samples, and fewer again for the few launches that
    the variance is known from. One launch says nothing. Where none was late there is no scatter to see, and every
    sample counts.
    """
    import numpy as np
    from scipy.special import betaincinv, stdtrit

    count, n, launches = sum(counts), sum(sizes), len(sizes)
    share = count / n if n else math.nan
    if launches < 2 or n < 2:
        return Interval(share, 0.0, 1.0, launches, confidence, math.nan)
    each, weights = np.asarray(counts) / np.asarray(sizes), np.asarray(sizes) / n
    variance = float((weights**2 * (each - share) ** 2).sum()) * launches / (launches - 1)
    tail = (1 - confidence) / 2
    few = float(stdtrit(n - 1, 1 - tail) / stdtrit(launches - 1, 1 - tail)) ** 2
    effective = few * (min(float(n), share * (1 - share) / variance) if variance > 0 else n)
    hits = share * effective
    low = float(betaincinv(hits, effective - hits + 1, tail)) if count else 0.0
    high = float(betaincinv(hits + 1, effective - hits, 1 - tail)) if count < n else 1.0
    return Interval(share, low, high, launches, confidence, float(each.std(ddof=1)))
