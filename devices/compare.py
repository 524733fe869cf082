"""`compare`: whether one model is slower than another, by launches until a planned look decides."""

from __future__ import annotations

import secrets
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from . import facts as host
from .arms import Arm, Plan, arm_from_path
from .family import rule_for
from .gate import Decision, Rule, Verdict, judge, without_comparison
from .sitting import QUICK_ROUNDS, Progress, Sitting, opened_store

if TYPE_CHECKING:
    from ..targets.profile import Profile
    from .results import ArmSummary, Comparison
    from .store import Store

BASE, AGAIN, CANDIDATE = "base", "base again", "candidate"
FIGURES = {".json", ".db", ".sqlite", ".sqlite3"}


def compare(
    base: str | Path | Arm,
    candidate: str | Path | Arm,
    *,
    tolerate: float = 0.01,
    detect: float | None = None,
    quick: bool = False,
    threads: int | None = None,
    device: str | None = None,
    python: str | Path | None = None,
    base_python: str | Path | None = None,
    seed: int | None = None,
    plan: Plan | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
    family: int = 1,
) -> Comparison:
    """Whether `candidate` is slower than `base`; both are bundles, raw model files, or arms.

    A base that isn't there is no error: the verdict is NEW, and nothing is measured.

    Args:
        tolerate: REGRESS where it is proven slower by more than this fraction.
        detect: PASS where a slowdown of this fraction is excluded; 0.05, or 0.10 with `quick`.
        quick: one planned look at 5 launches of 6 rounds: weaker.
        threads: of both, instead of each bundle's own.
        device: a profile that restricts both: its name, or a TOML file; see `device_profile`.
        python: another interpreter to open both in: any that has numpy, psutil and the runtime.
        base_python: the one of `base`, where that is another: what an upgrade of a runtime costs.
        seed: of the order of rounds, and of the inputs of raw model files.
        plan: how much a launch measures.
        store: keeps all measurements: a store, its path or URL.
        progress: takes a line before each launch.
        family: benchmarks of one run, of which this is one; see `gate.Rule`.

    Raises:
        UsageError: a path is no bundle or model, or the margins make no sense.
        CannotDo: a runtime is missing.
    """
    from .results import Comparison, summarise

    rule = rule_for(quick, tolerate, detect, family)
    plan = plan or Plan(rounds=QUICK_ROUNDS if quick else 12)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
        seed = secrets.randbits(32) if seed is None else seed
        same: dict[str, Any] = {"threads": threads, "device": device, "seed": seed}
        b = _arm(candidate, folder / "candidate.npz", python=python, **same)
        if not isinstance(base, Arm) and not Path(base).exists():
            decision = without_comparison(f"there is no baseline {base}", baseline=False)
            return unmeasured(str(base), b, decision, rule, plan, seed)
        _no_figures(base)
        a = _arm(base, folder / "base.npz", python=base_python or python, **same)
        where = opened_store(store, stack)
        sitting = Sitting(plan, seed=seed, store=where, progress=progress, purpose="seatrial compare")
        stack.enter_context(sitting)
        start = time.monotonic()  # waiting for the device is no part of it
        decision = decide(sitting, a, b, rule)
        profiles = [_profile(sitting, arm, decision) for arm in (a, b)]
    launches = sitting.launches
    one, other = summarise(launches, a.named(BASE)), summarise(launches, b.named(CANDIDATE))
    decision = replace(decision, warnings=tuple(_doubts(one, other, rule)))
    seconds = time.monotonic() - start
    if a.same == b.same:  # what ran is asked once for each artifact
        other = replace(other, placement=one.placement, ran_precision=one.ran_precision)
    one, other = replace(one, arm=a, profile=profiles[0]), replace(other, arm=b, profile=profiles[1])
    return Comparison(one, other, decision, rule, plan, sitting.seed, sitting.session, sitting.facts, launches, seconds)


def unmeasured(
    base: str, candidate: str | Arm, decision: Decision, rule: Rule, plan: Plan | None = None, seed: int = 0
) -> Comparison:
    """A comparison that didn't take place, and why."""
    from .results import ArmSummary, Comparison

    one = ArmSummary(Arm.absent(base), "missing", decision.reason)
    other = ArmSummary(candidate if isinstance(candidate, Arm) else Arm.absent(candidate), "unmeasured", None)
    return Comparison(one, other, decision, rule, plan or Plan(), seed, "", host.host_facts(), [], 0.0)


def _no_figures(base: str | Path | Arm) -> None:
    """Refuse stored measurements as a baseline: only what is measured now, beside the candidate, is one."""
    if not isinstance(base, Arm) and Path(base).is_file() and Path(base).suffix in FIGURES:
        found = "stored figures are no baseline: they tell of another hour, or another machine, as much as of the model"
        raise UsageError(f"the baseline {base}", found, "give the bundle that was measured, or --base-ref")


def decide(sitting: Sitting, base: Arm, candidate: Arm, rule: Rule) -> Decision:
    """Launches of base, its duplicate and candidate until a planned look decides."""
    from .results import effects

    arms = [base.named(BASE), base.named(AGAIN), candidate.named(CANDIDATE)]
    stat, last = sitting.plan.stat, rule.looks[-1].launches
    for count in range(1, last + 1):
        sitting.say(f"launch {count} of at most {last}{_so_far(sitting, stat)}")
        failed = [run for run in sitting.launch(arms).arms.values() if not run.ok]
        if failed:
            return without_comparison(f"{failed[0].name} did not produce ({failed[0].status}): {failed[0].reason}")
        look = rule.look_at(count)
        if look is not None:
            b = effects(sitting.launches, BASE, CANDIDATE, stat)
            decision = judge(b, effects(sitting.launches, BASE, AGAIN, stat), rule, look)
            if decision.final:
                return decision
    raise AssertionError("the last look is always final")


def _profile(sitting: Sitting, arm: Arm, decision: Decision) -> Profile | None:
    """What its operators take, for a red comparison alone: a green one owes nobody where the time goes."""
    if decision.verdict != Verdict.REGRESS:
        return None
    sitting.say(f"profiling {arm.name}")
    return sitting.profile(arm)


def _so_far(sitting: Sitting, stat: str) -> str:
    from .results import estimate

    if not sitting.launches:
        return ""
    return f", ratio so far {estimate(sitting.launches, BASE, CANDIDATE, stat).ratio:.3f}"


def _doubts(base: ArmSummary, candidate: ArmSummary, rule: Rule) -> list[str]:
    """What the verdict doesn't weigh but a reader should know."""
    doubts = []
    if base.ran_precision != candidate.ran_precision and base.ran_precision and candidate.ran_precision:
        doubts.append(f"different precisions ran: {base.ran_precision} and {candidate.ran_precision}")
    for key, what in (("p90_ms", "90th percentile"), ("mean_ms", "mean")):
        one, other = base.samples_ms.get(key), candidate.samples_ms.get(key)
        if one and other and other / one > 1 + rule.detect:
            doubts.append(f"the {what} rose by {other / one - 1:.1%}; only medians are judged")
    return doubts


def differences(found: Comparison) -> list[tuple[str, int, int]]:
    """Places and operators that ran more or less often in the candidate: name, nodes in the base, in the candidate."""
    changed = []
    for what in ("where", "ops"):
        one, other = ((arm.placement or {}).get(what, {}) for arm in (found.base, found.candidate))
        names = sorted(one.keys() | other.keys())
        changed += [(name, one.get(name, 0), other.get(name, 0)) for name in names]
    return [row for row in changed if row[1] != row[2]]


def _arm(x: str | Path | Arm, inputs: Path, **how: Any) -> Arm:
    return x if isinstance(x, Arm) else arm_from_path(x, inputs, Path(x).name, **how)
