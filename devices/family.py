"""Several comparisons of one run: planned together, judged together by Holm's procedure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import Interrupted, SeatrialError
from .arms import Arm
from .gate import FULL_LOOKS, QUICK_LOOKS, Decision, Look, Rule, Verdict, lower_bound, regress, without_comparison
from .stats import detectable_effect, holm

if TYPE_CHECKING:
    from .results import Comparison
    from .sitting import Progress
    from .store import Store

USUAL_SPREAD = 0.005
"""Launches of a machine that is fit for a gate scatter by about this much; it only plans looks."""

HOW = ("threads", "device", "python", "base_python")
"""What a `Case` may say of how its two are measured; see `compare.compare`."""


@dataclass(frozen=True)
class Case:
    """One benchmark of a run: two bundles, model files or arms; or, with `decision`, why there is nothing to measure.

    `origin` says in words where the base came from, where its path doesn't.
    """

    name: str
    base: str | Path | Arm = ""
    candidate: str | Path | Arm = ""
    tolerate: float = 0.01
    detect: float | None = None
    threads: int | None = None
    device: str | None = None
    python: str | None = None
    base_python: str | None = None
    origin: str = ""
    decision: Decision | None = None

    @property
    def measured(self) -> bool:
        """Whether there are two things to measure."""
        return self.decision is None and (isinstance(self.base, Arm) or Path(self.base).exists())


def rule_for(quick: bool, tolerate: float, detect: float | None, family: int = 1) -> Rule:
    """The rule of each benchmark of a run of `family`.

    With many, Holm leaves so little alpha to the first of two looks that it wouldn't prove a slowdown of `detect`; then
    one look with all of it is planned.
    """
    rule = Rule(tolerate, (0.10 if quick else 0.05) if detect is None else detect, family=family)
    if quick:
        return replace(rule, looks=QUICK_LOOKS)
    first, last = FULL_LOOKS[0], FULL_LOOKS[-1].launches
    alpha = rule.alpha * first.share / family
    seen = detectable_effect(USUAL_SPREAD, first.launches, alpha, math.log1p(rule.tolerate))
    return rule if family == 1 or seen <= math.log1p(rule.detect) else replace(rule, looks=(Look(last, 1.0),))


def compare_all(
    cases: Sequence[Case],
    *,
    quick: bool = False,
    seed: int | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Each case's comparison, one after the other, and then judged together.

    Of several, one that can't be measured is MISSING and the others go on; a lone one raises its error.
    """
    from .compare import compare, unmeasured

    family = max(1, sum(case.measured for case in cases))
    found = []
    for case in cases:
        rule = rule_for(quick, case.tolerate, case.detect, family)
        if case.decision:
            found.append(unmeasured(str(case.base), str(case.candidate), case.decision, rule))
            continue
        say = (lambda text, name=case.name: progress(f"{name}: {text}")) if progress and len(cases) > 1 else progress
        try:
            one = compare(
                case.base,
                case.candidate,
                tolerate=case.tolerate,
                detect=case.detect,
                quick=quick,
                **{name: getattr(case, name) for name in HOW},
                seed=seed,
                store=store,
                progress=say,
                family=family,
            )
        except SeatrialError as error:
            if len(cases) == 1 or isinstance(error, Interrupted):
                raise
            one = unmeasured(str(case.base), str(case.candidate), without_comparison(error.one_line), rule)
        found.append(_named(one, case) if case.origin else one)
    decisions = settle([one.decision for one in found], [one.rule for one in found])
    return [replace(one, decision=decision) for one, decision in zip(found, decisions, strict=True)]


def settle(decisions: Sequence[Decision], rules: Sequence[Rule]) -> list[Decision]:
    """Holm's further steps: what isn't proven at alpha / family may be once the clearer ones are.

    Each sitting already judged at the first, strictest step. p-values are valid over the looks of a sitting, so the
    step-down over sittings is too.
    """
    judged = (Verdict.REGRESS, Verdict.PASS, Verdict.INCONCLUSIVE)
    tails = [d.p if d.p is not None and d.verdict in judged else 1.0 for d in decisions]
    order = sorted(range(len(tails)), key=tails.__getitem__)
    settled = list(decisions)
    for i, adjusted in enumerate(holm(tails)):
        one, rule, effect = decisions[i], rules[i], decisions[i].effect
        if one.verdict == Verdict.REGRESS or effect is None or adjusted > rule.alpha:
            continue
        look = rule.look_at(effect.n)
        alpha = rule.alpha * (1.0 if look is None else rule.looks[look].share)
        step = alpha / (len(tails) - order.index(i))
        effect = replace(effect, low=lower_bound(effect, step), confidence=1 - alpha - step)
        reason = f"{regress(effect, rule)}, by Holm's later step"
        settled[i] = replace(one, verdict=Verdict.REGRESS, reason=reason, effect=effect)
    return settled


def _named(found: Comparison, case: Case) -> Comparison:
    """With names that tell where the two came from, since their paths are temporary."""
    base, candidate = found.base, found.candidate
    return replace(
        found,
        base=replace(base, arm=base.arm.named(case.origin)),
        candidate=replace(candidate, arm=candidate.arm.named(case.name)),
    )
