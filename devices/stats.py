"""Statistics of interleaved timing: block, launch and session summaries, with intervals over launches.

The unit of replication is the process launch. Tests on raw iterations are invalid, because iterations are
autocorrelated (.26 to .46): Mann-Whitney on them gave 83 % false positives at .05, a t-test over launches 2
to 5 %. Only `scipy.special` is used, because `scipy.stats` takes most of a second to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

STATS = ("median", "lower_quartile")
MIN_SAMPLES_FOR_P99 = 662  # the second largest lies above the true p99 in 99 of 100 cases; see tails.samples_needed


@dataclass(frozen=True)
class Interval:
    """A centre with its two-sided interval; `spread` is the deviation of the `n` values behind it."""

    centre: float
    low: float
    high: float
    n: int
    confidence: float
    spread: float

    @property
    def half_width(self) -> float:
        """Half of the distance between the bounds, in the unit of the centre."""
        return (self.high - self.low) / 2

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; an infinite bound becomes None."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}


def block_stat(samples_ns: Sequence[float], stat: str = "median") -> float:
    """Summary of one block's iterations, in ns: the median, or the sturdier lower quartile."""
    import numpy as np

    if stat not in STATS:
        raise ValueError(f"unknown block statistic {stat!r}; one of {', '.join(STATS)}")
    if len(samples_ns) == 1:
        return float(samples_ns[0])
    return float(np.quantile(np.asarray(samples_ns, dtype=float), 0.5 if stat == "median" else 0.25))


def hodges_lehmann(values: Sequence[float]) -> float:
    """Median of the Walsh averages (v_i + v_j) / 2, i <= j: robust, and nearly as precise as a mean."""
    import numpy as np

    v = np.asarray(values, dtype=float)
    i, j = np.triu_indices(len(v))
    return float(np.median((v[i] + v[j]) / 2))


def launch_effect(
    blocks_a: Sequence[Sequence[float]], blocks_b: Sequence[Sequence[float]], stat: str = "median"
) -> float:
    """Hodges-Lehmann centre over a launch's rounds of log(stat(B) / stat(A)); block i is round i."""
    if len(blocks_a) != len(blocks_b) or not blocks_a:
        raise ValueError(f"rounds must pair up: {len(blocks_a)} blocks against {len(blocks_b)}")
    pairs = zip(blocks_a, blocks_b, strict=True)
    return hodges_lehmann([math.log(block_stat(b, stat) / block_stat(a, stat)) for a, b in pairs])


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of launch effects with Student's two-sided interval; one launch has an infinite one."""
    import numpy as np
    from scipy.special import stdtrit

    v = np.asarray(values, dtype=float)
    if not len(v):
        raise ValueError("an interval needs at least one launch")
    mean, n = float(v.mean()), len(v)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1, confidence, math.nan)
    spread = float(v.std(ddof=1))
    half = float(stdtrit(n - 1, 1 - (1 - confidence) / 2)) * spread / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, confidence, spread)


def t_test(values: Sequence[float]) -> float:
    """Two-sided p-value of 'the mean launch effect is 0'; 1 for fewer than two launches."""
    import numpy as np
    from scipy.special import stdtr

    v = np.asarray(values, dtype=float)
    if len(v) < 2:
        return 1.0
    error = float(v.std(ddof=1)) / math.sqrt(len(v))
    if error == 0:
        return 1.0 if v.mean() == 0 else 0.0
    return float(2 * stdtr(len(v) - 1, -abs(float(v.mean())) / error))


def detectable_effect(spread: float, launches: int, alpha: float, margin: float, power: float = 0.9) -> float:
    """The smallest true log effect that is proven to exceed `margin` (one-sided `alpha`) with this `power`.

    With the noncentral t distribution (`nctdtr`), for launches of this spread; found by bisection, since the
    power rises with the effect.
    """
    from scipy.special import nctdtr, stdtrit

    if launches < 2 or not math.isfinite(spread):
        return math.inf
    error = spread / math.sqrt(launches)
    critical = float(stdtrit(launches - 1, 1 - alpha))
    low, high = 0.0, 2 * critical + 20.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = 1 - float(nctdtr(launches - 1, middle, critical)) >= power
        low, high = (low, middle) if reached else (middle, high)
    return margin + high * error


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Median with the interval between two order statistics; no distribution is assumed.

    With few values (five launches give at most 93.75 %) the widest possible interval is returned, and
    `confidence` is the one that it really has.
    """
    import numpy as np
    from scipy.special import bdtr

    v = np.sort(np.asarray(values, dtype=float))
    n = len(v)
    if not n:
        raise ValueError("a median needs at least one value")
    # The j-th smallest and j-th largest miss the median with probability 2 P(Binomial(n, 1/2) <= j - 1).
    j = 1
    while j + 1 <= n // 2 and 2 * float(bdtr(j, n, 0.5)) <= 1 - confidence:
        j += 1
    reached = max(0.0, 1 - 2 * float(bdtr(j - 1, n, 0.5)))
    spread = float(v.std(ddof=1)) if n > 1 else math.nan
    return Interval(float(np.median(v)), float(v[j - 1]), float(v[n - j]), n, reached, spread)


def share_interval(count: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with its exact binomial interval (Clopper and Pearson); of nothing, all that is possible."""
    from scipy.special import betaincinv

    if not 0 <= count <= n:
        raise ValueError(f"{count} of {n}")
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return Interval(count / n if n else math.nan, low, high, n, confidence, math.nan)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values: compare each with the family-wise alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def percentiles(samples_ns: Sequence[float]) -> dict[str, float | None]:
    """min, p25, median, p90, mean in ms, and p99 where there are enough samples for it (else None)."""
    import numpy as np

    v = np.asarray(samples_ns, dtype=float) / 1e6
    p25, p50, p90, p99 = (float(x) for x in np.quantile(v, [0.25, 0.5, 0.9, 0.99]))
    enough = len(v) >= MIN_SAMPLES_FOR_P99
    return {
        "min_ms": float(v.min()),
        "p25_ms": p25,
        "median_ms": p50,
        "p90_ms": p90,
        "mean_ms": float(v.mean()),
        "p99_ms": p99 if enough else None,
    }
