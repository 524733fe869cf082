"""Typed results of comparisons and benches: views over launches, which hold the raw samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

from ..targets.profile import Profile
from .arms import Arm, Plan
from .frames import arm_row, frame, sample_rows
from .gate import Decision, Rule, Verdict
from .launches import ArmRun, Launch
from .stats import Interval, block_stat, holm, median_interval, percentiles, t_interval, t_test
from .tails import Late, Percentile

COMPARISON_SCHEMA = "seatrial.comparison/1"
BENCH_SCHEMA = "seatrial.bench/1"
FAMILY_ALPHA = 0.01
"""Of all statements 'A is faster than B' of one bench together."""


@dataclass(frozen=True)
class Estimate:
    """Time of `b` over time of `a`: ratio with a two-sided interval."""

    a: str
    b: str
    ratio: float
    low: float
    high: float
    launches: int
    confidence: float
    decided: bool | None = None  # set by `rank` only: True where the order of the two is proven

    @property
    def text(self) -> str:
        """In words, with the faster one first where the order is decided."""
        span = f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"
        if not self.decided:
            return f"{self.a} and {self.b}: not decided; time of {self.b} over {self.a} {span}"
        fast, slow = (self.a, self.b) if self.ratio > 1 else (self.b, self.a)
        low, high = (self.low, self.high) if self.ratio > 1 else (1 / self.high, 1 / self.low)
        times = self.ratio if self.ratio > 1 else 1 / self.ratio
        return f"{fast} is faster than {slow}: {times:.3f} × [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True)
class ArmSummary:
    """One arm over all its launches. `latency` (ms): median of launch medians between order statistics.

    Attributes:
        throughput: inferences in a second of concurrent streams, as `latency` over launches.
        percentiles: those that were asked for.
        late: the share beyond a deadline, where one was given.
        gpu_bytes: the most memory that it held of a GPU, by the GPU's name.
        limit: multiply-adds in a second as a share of what this CPU does; fp32 only.
        profile: what its operators took, where that was asked for; see `targets.profile.Profile`.
    """

    arm: Arm
    status: str
    reason: str | None
    latency: Interval | None = None
    samples_ms: dict[str, float | None] = field(default_factory=dict)
    load_ms: float | None = None
    first_ms: float | None = None
    peak_rss_bytes: int | None = None
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    spread: float | None = None  # (slowest - fastest) / median launch
    ran_precision: str | None = None
    placement: dict[str, Any] | None = None
    version: str | None = None
    launches: int = 0
    samples: int = 0
    throughput: Interval | None = None
    percentiles: tuple[Percentile, ...] = ()
    late: Late | None = None
    limit: float | None = None
    profile: Profile | None = None

    @property
    def ok(self) -> bool:
        """Whether it was measured in every launch."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found: dict[str, Any] = {**asdict(self), "arm": self.arm.to_dict()}
        for name in ("latency", "throughput", "late"):
            part = getattr(self, name)
            found[name] = part.to_dict() if part else None
        return found


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. Its raw `launches` name the arms base, base again (the canary), candidate."""

    base: ArmSummary
    candidate: ArmSummary
    decision: Decision
    rule: Rule
    plan: Plan
    seed: int
    session: str
    facts: dict[str, Any]
    launches: list[Launch]
    seconds: float

    def to_pandas(self, samples: bool = False) -> Any:
        """A data frame with a row for base and candidate, or, with `samples`, for each inference that was timed.

        Raises:
            MissingPart: pandas isn't installed.
        """
        return frame(list(sample_rows(self.launches)) if samples else [arm_row(self.base), arm_row(self.candidate)])

    @property
    def verdict(self) -> Verdict:
        """See `gate.Verdict`."""
        return self.decision.verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, raw samples and all."""
        return {
            "schema": COMPARISON_SCHEMA,
            **self.decision.to_dict(),
            "base": self.base.to_dict(),
            "candidate": self.candidate.to_dict(),
            "rule": self.rule.to_dict(),
            "plan": self.plan.to_dict(),
            "seed": self.seed,
            "session": self.session,
            "facts": self.facts,
            "seconds": self.seconds,
            "launches": [launch.to_dict() for launch in self.launches],
        }


@dataclass(frozen=True)
class BenchResult:
    """What `bench` found: arms from the fastest to the slowest, then those that failed; and the pairs' order.

    `valid` is False where the first arm differed from its own duplicate: then no order is given. `peaks` are the
    multiply-adds per second that this CPU does, by threads.
    """

    arms: list[ArmSummary]
    pairs: list[Estimate]
    valid: bool
    canary: Interval | None
    plan: Plan
    seed: int
    session: str
    facts: dict[str, Any]
    launches: list[Launch]
    seconds: float
    peaks: dict[int, float] = field(default_factory=dict)

    def to_pandas(self, samples: bool = False) -> Any:
        """A data frame with a row for each arm, or, with `samples`, for each inference that was timed.

        Raises:
            MissingPart: pandas isn't installed.
        """
        return frame(list(sample_rows(self.launches)) if samples else [arm_row(arm) for arm in self.arms])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, raw samples and all."""
        return {
            "schema": BENCH_SCHEMA,
            "arms": [arm.to_dict() for arm in self.arms],
            "pairs": [{**asdict(pair), "text": pair.text} for pair in self.pairs],
            "valid": self.valid,
            "canary_log": self.canary.to_dict() if self.canary else None,
            "plan": self.plan.to_dict(),
            "seed": self.seed,
            "session": self.session,
            "facts": self.facts,
            "seconds": self.seconds,
            "peaks_macs_per_s": self.peaks,
            "launches": [launch.to_dict() for launch in self.launches],
        }


def effects(launches: Sequence[Launch], a: str, b: str, stat: str) -> list[float]:
    """Log of b over a for every launch in which both produced."""
    found = (launch.effect(a, b, stat) for launch in launches)
    return [effect for effect in found if effect is not None]


def estimate(launches: Sequence[Launch], a: str, b: str, stat: str = "median", confidence: float = 0.95) -> Estimate:
    """Time of b over time of a, with Student's interval over launches; one launch has an infinite one.

    Raises:
        ValueError: no launch measured both.
    """
    interval = t_interval(effects(launches, a, b, stat), confidence)
    ratio, low, high = (_exp(x) for x in (interval.centre, interval.low, interval.high))
    return Estimate(a, b, ratio, low, high, interval.n, confidence)


def rank(launches: Sequence[Launch], names: Sequence[str], stat: str = "median") -> list[Estimate]:
    """Every pair's ratio, with `decided` by a t-test over launches and Holm's correction over the pairs."""
    pairs = [(a, b) for a, b in combinations(names, 2) if effects(launches, a, b, stat)]
    adjusted = holm([t_test(effects(launches, a, b, stat)) for a, b in pairs])
    found = []
    for (a, b), p in zip(pairs, adjusted, strict=True):
        one = estimate(launches, a, b, stat, 1 - FAMILY_ALPHA)
        found.append(Estimate(**{**asdict(one), "decided": p < FAMILY_ALPHA}))
    return found


def summarise(launches: Sequence[Launch], arm: Arm) -> ArmSummary:
    """One arm over the launches in which it took part; failed where it failed in one of them."""
    runs = [launch.arms[arm.name] for launch in launches if arm.name in launch.arms]
    good = [run for run in runs if run.ok]
    bad = next((run for run in runs if not run.ok), None)
    status, reason = ("ok", None) if not bad else (bad.status, bad.reason)
    if not runs:
        return ArmSummary(arm, "missing", "never measured")
    seen = next((run.placement for run in runs if run.placement), None)
    version = next((run.opened["version"] for run in runs if "version" in run.opened), None)
    if not good:
        return ArmSummary(arm, status, reason, placement=seen, version=version)
    medians = [block_stat([x for block in run.blocks for x in block]) / 1e6 for run in good]
    samples = [x for run in good for block in run.blocks for x in block]
    return ArmSummary(
        arm,
        status,
        reason,
        latency=median_interval(medians),
        samples_ms=percentiles(samples),
        load_ms=median_interval([run.opened["load_ms"] for run in good]).centre,
        first_ms=median_interval([run.opened["first_ms"] for run in good]).centre,
        peak_rss_bytes=max((run.peak_rss_bytes or 0 for run in good), default=0) or None,
        gpu_bytes={name: max(run.gpu_bytes.get(name, 0) for run in good) for run in good for name in run.gpu_bytes},
        spread=(max(medians) - min(medians)) / median_interval(medians).centre,
        ran_precision=seen["precision"] if seen else None,
        placement=seen,
        version=version,
        launches=len(good),
        samples=len(samples),
        throughput=_throughput(good),
    )


def _throughput(runs: Sequence[ArmRun]) -> Interval | None:
    """Inferences in a second: the mean of a launch's blocks, and as for latency the median of launches."""
    rates = [[note["rate_per_s"] for note in run.notes if "rate_per_s" in note] for run in runs]
    return median_interval([sum(one) / len(one) for one in rates]) if rates and all(rates) else None


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
