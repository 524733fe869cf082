"""The verdicts of a comparison: two planned looks, a canary, and two margins that are both the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..core.errors import UsageError
from .stats import Interval, detectable_effect, t_interval


class Verdict(StrEnum):
    """In the order in which they are given: the first that holds."""

    NEW = "NEW"  # there is no baseline to compare with
    MISSING = "MISSING"  # an arm that was expected did not produce samples
    INVALID = "INVALID"  # the canary failed, or the session was too noisy to mean anything
    REGRESS = "REGRESS"  # proven slower by more than `tolerate`
    PASS = "PASS"  # a slowdown of `detect` is excluded
    INCONCLUSIVE = "INCONCLUSIVE"  # neither


@dataclass(frozen=True)
class Look:
    """A planned look at the data: after so many launches, spending this share of alpha."""

    launches: int
    share: float


FULL_LOOKS = (Look(5, 0.2), Look(12, 0.8))
QUICK_LOOKS = (Look(5, 1.0),)


@dataclass(frozen=True)
class Rule:
    """`tolerate` and `detect` are fractions; `alpha` is one-sided, over all looks of one comparison.

    The canary fails where base and duplicate differ, proven, by more than `canary_slack` of `tolerate`: a smaller bias
    can't turn a verdict, and of many sessions some always prove one of practically nothing.

    `family` counts the benchmarks that are judged in one run. REGRESS and a failed canary are alarms, so each benchmark
    gets its part of their alpha (Holm's first step, see `family.settle`). PASS isn't divided: a run is green only when
    all are, so one that hides a slowdown of `detect` is green at most as rarely as that benchmark alone.
    """

    tolerate: float = 0.01
    detect: float = 0.05
    alpha: float = 0.01
    canary_alpha: float = 0.005  # two-sided: at 95 %, one A/A session in twenty would be INVALID by chance
    canary_slack: float = 0.1
    looks: tuple[Look, ...] = FULL_LOOKS
    family: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.tolerate < self.detect:
            asked = f"tolerate {self.tolerate:.2%}, detect {self.detect:.2%}"
            raise UsageError(asked, "tolerate must be 0 or more, and less than detect", "give 0.01 and 0.05, or others")
        if not math.isclose(sum(look.share for look in self.looks), 1.0):
            raise ValueError("the looks must share out the whole of alpha")

    def look_at(self, launches: int) -> int | None:
        """Index of the look that is due after this many launches, or None."""
        return next((i for i, look in enumerate(self.looks) if look.launches == launches), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        looks = [[look.launches, look.share] for look in self.looks]
        return {
            "tolerate": self.tolerate,
            "detect": self.detect,
            "alpha": self.alpha,
            "canary_alpha": self.canary_alpha,
            "canary_slack": self.canary_slack,
            "looks": looks,
            "family": self.family,
        }


@dataclass(frozen=True)
class Decision:
    """What a look says. Intervals are of log ratios: `effect` of B over A, `canary` of A' over A.

    `detectable` is the slowdown, as a fraction, that a session as noisy as this one proves 9 times in 10; `p` the
    one-sided p-value of 'slower by no more than `tolerate`', over all looks and not yet over a family.
    """

    verdict: Verdict
    reason: str
    final: bool = True
    effect: Interval | None = None
    canary: Interval | None = None
    detectable: float | None = None
    p: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """B over A with its bounds, as plain ratios."""
        if self.effect is None:
            return None
        return math.exp(self.effect.centre), _exp(self.effect.low), _exp(self.effect.high)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": str(self.verdict),
            "reason": self.reason,
            "ratio": [_finite(x) for x in self.ratio] if self.ratio else None,
            "effect_log": self.effect.to_dict() if self.effect else None,
            "canary_log": self.canary.to_dict() if self.canary else None,
            "detectable": _finite(self.detectable),
            "p": self.p,
            "warnings": list(self.warnings),
        }


def judge(effects: Sequence[float], canaries: Sequence[float], rule: Rule, look: int) -> Decision:
    """The verdict of one look at the launch effects of B over A and of A' over A (logs).

    Not final: at an earlier look, 'too noisy' and 'neither' mean that more launches are taken.
    """
    share, last = rule.looks[look].share, look == len(rule.looks) - 1
    alpha, margin = rule.alpha * share, math.log1p(rule.tolerate)
    effect = t_interval(effects, 1 - 2 * alpha)
    if rule.family > 1:
        strict = alpha / rule.family
        effect = replace(effect, low=lower_bound(effect, strict), confidence=1 - alpha - strict)
    canary = t_interval(canaries, 1 - rule.canary_alpha * share)
    sure = t_interval(canaries, 1 - rule.canary_alpha * share / rule.family)
    p = min(1.0, tail(effect, margin) / share)
    detectable = provable(effect, rule, rule.family)
    verdict, reason, early = _first_that_holds(effect, canary, sure, rule)
    return Decision(verdict, reason, last or early, effect, canary, detectable, p)


def provable(effect: Interval, rule: Rule, family: int) -> float:
    """The slowdown, as a fraction, that launches of this spread prove 9 times in 10, as one of `family` benchmarks."""
    look = rule.look_at(effect.n)
    alpha = rule.alpha * (1.0 if look is None else rule.looks[look].share) / family
    return math.expm1(min(50.0, detectable_effect(effect.spread, effect.n, alpha, math.log1p(rule.tolerate))))


def tail(effect: Interval, margin: float) -> float:
    """One-sided p-value of 'the true mean of these launch effects is `margin` or less'; 1 for fewer than two."""
    from scipy.special import stdtr

    if effect.n < 2:
        return 1.0
    error, above = effect.spread / math.sqrt(effect.n), effect.centre - margin
    if error == 0:
        return 0.0 if above > 0 else 1.0
    return float(stdtr(effect.n - 1, -above / error))


def lower_bound(effect: Interval, alpha: float) -> float:
    """The one-sided lower bound at this alpha of a mean of launch effects."""
    from scipy.special import stdtrit

    if effect.n < 2:
        return -math.inf
    return effect.centre - float(stdtrit(effect.n - 1, 1 - alpha)) * effect.spread / math.sqrt(effect.n)


def without_comparison(reason: str, baseline: bool = True) -> Decision:
    """MISSING, or NEW where there was no baseline to begin with."""
    return Decision(Verdict.MISSING if baseline else Verdict.NEW, reason)


def _first_that_holds(effect: Interval, canary: Interval, sure: Interval, rule: Rule) -> tuple[Verdict, str, bool]:
    """Verdict, the reason for it, and whether it stands before the last look; `sure` is the canary over a family."""
    limit = math.log1p(rule.detect) / 2
    if sings(sure, rule):
        return Verdict.INVALID, f"the baseline differs from its own duplicate: {percent(sure)}", True
    if not canary.half_width < limit:
        found = f"± {_exp(canary.half_width) - 1:.1%}"
        needed = f"± {math.expm1(limit):.1%}"
        reason = f"too noisy: the baseline against its own duplicate is known to {found}, needed {needed}"
        return Verdict.INVALID, reason, False
    if effect.low > math.log1p(rule.tolerate):
        return Verdict.REGRESS, regress(effect, rule), True
    if effect.high < math.log1p(rule.detect):
        return Verdict.PASS, f"a slowdown of {rule.detect:.1%} is excluded: {percent(effect)}", True
    margins = f"neither a slowdown of {rule.tolerate:.1%} is proven nor one of {rule.detect:.1%} excluded"
    reason = f"{margins}: {percent(effect)}"
    return Verdict.INCONCLUSIVE, reason, False


def sings(canary: Interval, rule: Rule) -> bool:
    """Whether a baseline proves to differ from its own duplicate, by more than next to nothing."""
    slack = rule.canary_slack * math.log1p(rule.tolerate)
    return canary.low > slack or canary.high < -slack


def regress(effect: Interval, rule: Rule) -> str:
    """The reason of a REGRESS."""
    return f"proven slower by more than {rule.tolerate:.1%}: {percent(effect)}"


def percent(log: Interval) -> str:
    """An interval of log ratios as a change in percent."""
    centre, low, high = (100 * (_exp(x) - 1) for x in (log.centre, log.low, log.high))
    return f"{centre:+.2f} % [{low:+.2f}, {high:+.2f}]"


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None
