"""`bench`: models timed beside each other, with what is decided of their order."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import NothingMeasured, SeatrialError
from .arms import Arm, Plan, arms_from_paths
from .gate import Rule
from .sitting import QUICK_ROUNDS, Progress, Sitting, opened_store

if TYPE_CHECKING:
    from .results import BenchResult
    from .store import Store


def bench(
    models: Sequence[str | Path | Arm],
    *,
    threads: int | None = None,
    launches: int | None = None,
    rounds: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    plan: Plan | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Time bundles, raw model files or arms beside each other. One that fails doesn't stop the others.

    Raises the error of the only model, or NothingMeasured, where none can even be tried. With two or more, a
    duplicate of the first that works is measured too, and no order is given where they differ.

    Args:
        launches: 6 by default, or 4 with `quick`.
        rounds: in each launch: 12 by default, or 6 with `quick`.
    """
    plan = plan or Plan(launches=4 if quick else 6, rounds=QUICK_ROUNDS if quick else 12)
    plan = plan if launches is None else replace(plan, launches=launches)
    plan = plan if rounds is None else replace(plan, rounds=rounds)
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
        seed = secrets.randbits(32) if seed is None else seed
        arms, unusable = _arms(models, folder, threads, seed)
        if not arms:
            raise _nothing(list(unusable.values()))
        where = opened_store(store, stack)
        sitting = Sitting(plan, seed=seed, store=where, progress=progress, purpose="seatrial bench")
        stack.enter_context(sitting)
        _bench_launches(sitting, arms)
    return _bench_result(sitting, arms, unusable, time.monotonic() - start)


def _bench_launches(sitting: Sitting, arms: Sequence[Arm]) -> None:
    """Fixed launches; an arm that failed isn't tried again, since it may have cost its whole time limit."""
    left = list(arms)
    for count in range(1, sitting.plan.launches + 1):
        if not left:
            return
        sitting.say(f"launch {count} of {sitting.plan.launches}")
        canary = [left[0].named(_again(left[0]))] if len(left) > 1 else []
        launch = sitting.launch([*left, *canary])
        for arm in list(left):
            if not launch.arms[arm.name].ok:
                sitting.say(f"{arm.name} failed: {launch.arms[arm.name].reason}")
                left.remove(arm)


def _bench_result(
    sitting: Sitting, arms: Sequence[Arm], unusable: Mapping[str, SeatrialError], seconds: float
) -> BenchResult:
    from .results import ArmSummary, BenchResult, effects, rank, summarise
    from .stats import t_interval

    plan, launches = sitting.plan, sitting.launches
    found = [summarise(launches, arm) for arm in arms]
    good = sorted((s for s in found if s.ok and s.latency), key=lambda s: s.latency.centre if s.latency else 0.0)
    bad = [s for s in found if not s.ok]
    for name, error in unusable.items():
        bad.append(ArmSummary(Arm(name, "", "", "", {}, ""), "unusable", f"{error.asked}: {error.found}"))
    canaries = [x for arm in arms for x in effects(launches, arm.name, _again(arm), plan.stat)]
    canary = t_interval(canaries, 1 - Rule().canary_alpha) if canaries else None
    valid = canary is None or canary.low <= 0 <= canary.high
    pairs = rank(launches, [s.arm.name for s in good], plan.stat) if valid else []
    return BenchResult(
        good + bad,
        pairs,
        valid,
        canary,
        plan,
        sitting.seed,
        sitting.session,
        sitting.facts,
        launches,
        seconds,
    )


def _again(arm: Arm) -> str:
    return f"{arm.name} (duplicate)"


def _arms(
    models: Sequence[str | Path | Arm], folder: Path, threads: int | None, seed: int
) -> tuple[list[Arm], dict[str, SeatrialError]]:
    """Arms, and by name the error of every path that can't be one."""
    paths = [model for model in models if not isinstance(model, Arm)]
    made, failed = arms_from_paths(paths, folder, threads=threads, seed=seed)
    return [m for m in models if isinstance(m, Arm)] + made, failed


def _nothing(errors: Sequence[SeatrialError]) -> SeatrialError:
    """The one error there is, with its own exit code; else one that counts them."""
    if len(errors) == 1:
        return errors[0]
    found = "; ".join(f"{error.asked}: {error.found}" for error in errors) or "no model was given"
    return NothingMeasured("bench", found, "give bundles or model files")
