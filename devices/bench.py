"""`bench`: models timed beside each other, with what is decided of their order."""

from __future__ import annotations

import math
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import NothingMeasured, SeatrialError
from .arms import Arm, Plan, arms_from_paths
from .device_profile import device_profile
from .feeds import Wishes
from .gate import Rule, sings
from .grid import Grid
from .peak import with_limits
from .probe import interpreter
from .results import ArmSummary, BenchResult, effects, rank, summarise
from .sitting import QUICK_ROUNDS, Progress, Sitting, opened_store
from .stats import t_interval
from .tails import Tails

if TYPE_CHECKING:
    from .store import Store

OPEN_S = 1.0
"""To start a process, import a runtime, load a model: a guess, until the first launch has shown it."""


def bench(
    models: Sequence[str | Path | Arm],
    *,
    threads: int | Sequence[int] | None = None,
    batch: int | Sequence[int] | None = None,
    concurrency: int | Sequence[int] | None = None,
    settings: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[int]] | None = None,
    inputs: str | Path | None = None,
    device: str | None = None,
    python: str | Path | Sequence[str | Path] | None = None,
    deadline_ms: float | None = None,
    miss: float = 0.01,
    percentiles: Sequence[float] = (),
    macs: Callable[[Arm], float | None] | None = None,
    profile: bool = False,
    launches: int | None = None,
    rounds: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    plan: Plan | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Time bundles, raw model files or arms beside each other. One that fails doesn't stop the others.

    Of threads, batch, concurrency and settings several values may be given: each combination is an arm. Arms that
    are given as such stay as they are.

    Raises the error of the only model, or NothingMeasured, where none can even be tried. With two or more, a
    duplicate of the first that works is measured too, and no order is given where they differ.

    Args:
        batch: size of the first axis of every input.
        concurrency: so many inferences at the same time, each in a thread and of `threads` threads; it gives
            inferences in a second, and latency under that load.
        settings: of the runtimes: a value, or a list of them, by ``KEY`` or ``TARGET.KEY``.
        shapes: sizes of inputs by name, where the model leaves them free.
        ranges: low and high (one more than the largest) of integer inputs by name.
        inputs: an ``.npz`` with an array for each input, instead of inputs that are made up.
        device: a profile that restricts this machine: its name, or a TOML file; see `device_profile`.
        python: another interpreter, or several, to open the models in: any that has numpy, psutil and the runtime.
        deadline_ms: tells the share of inferences that took longer, and whether it is proven to exceed `miss`.
        percentiles: such as ``(50, 99.9)``; each is given only where there are enough samples.
        macs: tells the multiply-adds of one inference of an arm, for `ArmSummary.limit`.
        profile: asks each arm's runtime afterwards, in a process of its own, what its operators took.
        launches: 6 by default, or 4 with `quick`.
        rounds: in each launch: 12 by default, or 6 with `quick`.

    Raises:
        UsageError: a model doesn't take what is asked for; nothing was measured.
    """
    plan = plan or Plan(launches=4 if quick else 6, rounds=QUICK_ROUNDS if quick else 12)
    plan = plan if launches is None else replace(plan, launches=launches)
    plan = plan if rounds is None else replace(plan, rounds=rounds)
    seed = secrets.randbits(32) if seed is None else seed
    wishes = Wishes(shapes or {}, ranges or {}, Path(inputs) if inputs is not None else None, seed)
    chosen = {key: _several(value) for key, value in (settings or {}).items()}
    limits = device_profile(device) if device else None
    pythons = [interpreter(each) for each in _several(python)]
    grid = Grid(_several(threads), _several(batch), _several(concurrency), chosen, wishes, limits, pythons)
    tails = Tails(deadline_ms, miss, tuple(percentiles))
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
        arms, unusable = _arms(models, folder, grid)
        if not arms:
            raise _nothing(list(unusable.values()))
        where = opened_store(store, stack)
        sitting = Sitting(plan, seed=seed, store=where, progress=progress, purpose="seatrial bench")
        stack.enter_context(sitting)
        _bench_launches(sitting, arms)
        found = [_with_tails(summarise(sitting.launches, arm), sitting, tails, len(arms)) for arm in arms]
        found, peaks = with_limits(found, macs, sitting) if macs else (found, {})
        found = [_with_profile(one, sitting) if profile and one.ok else one for one in found]
    result = _bench_result(sitting, found, unusable, time.monotonic() - start)
    return replace(result, peaks=peaks)


def _bench_launches(sitting: Sitting, arms: Sequence[Arm]) -> None:
    """Fixed launches; an arm that failed isn't tried again, since it may have cost its whole time limit."""
    left, all_of_them = list(arms), sitting.plan.launches
    for count in range(1, all_of_them + 1):
        if not left:
            return
        canary = [left[0].named(_again(left[0]))] if len(left) > 1 else []
        each_s = sitting.launches[-1].seconds if sitting.launches else predicted_s([*left, *canary], sitting.plan)
        sitting.say(f"launch {count} of {all_of_them}, {_about(each_s * (all_of_them - count + 1))} to go")
        launch = sitting.launch([*left, *canary])
        for arm in list(left):
            if not launch.arms[arm.name].ok:
                sitting.say(f"{arm.name} failed: {launch.arms[arm.name].reason}")
                left.remove(arm)


def predicted_s(arms: Sequence[Arm], plan: Plan) -> float:
    """What a launch of these arms will take, if each opens in a second and a block holds several inferences."""
    blocks = [plan.streams_s if arm.streams else (plan.block_ms + plan.splits * plan.cold_ms) / 1e3 for arm in arms]
    warm_s = [plan.warm_s * (2 if arm.streams else 1) for arm in arms]
    return sum(OPEN_S + warm + plan.rounds * block for warm, block in zip(warm_s, blocks, strict=True))


def _about(seconds: float) -> str:
    return f"about {seconds / 60:.1f} min" if seconds >= 60 else f"about {math.ceil(seconds)} s"


def _with_tails(found: ArmSummary, sitting: Sitting, tails: Tails, arms: int) -> ArmSummary:
    """The summary with the percentiles and the share beyond the deadline that were asked for."""
    runs = [launch.arms[found.arm.name] for launch in sitting.launches if found.arm.name in launch.arms]
    samples = [[ns for block in run.blocks for ns in block] for run in runs if run.ok]
    return found if not samples else replace(found, **tails.of(samples, arms))


def _with_profile(found: ArmSummary, sitting: Sitting) -> ArmSummary:
    sitting.say(f"profiling {found.arm.name}")
    return replace(found, profile=sitting.profile(found.arm))


def _bench_result(
    sitting: Sitting, found: Sequence[ArmSummary], unusable: Mapping[str, SeatrialError], seconds: float
) -> BenchResult:
    plan, launches = sitting.plan, sitting.launches
    good = sorted((s for s in found if s.ok and s.latency), key=lambda s: s.latency.centre if s.latency else 0.0)
    bad = [s for s in found if not s.ok]
    for name, error in unusable.items():
        bad.append(ArmSummary(Arm.absent(name), "unusable", f"{error.asked}: {error.found}"))
    canaries = [x for s in found for x in effects(launches, s.arm.name, _again(s.arm), plan.stat)]
    canary = t_interval(canaries, 1 - Rule().canary_alpha) if canaries else None
    valid = canary is None or not sings(canary, Rule())
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


def _several(value: Any) -> tuple[Any, ...]:
    """A lone value as a sequence of one."""
    if value is None:
        return ()
    return (value,) if isinstance(value, (str, int, float, Path)) else tuple(value)


def _again(arm: Arm) -> str:
    return f"{arm.name} (duplicate)"


def _arms(models: Sequence[str | Path | Arm], folder: Path, grid: Grid) -> tuple[list[Arm], dict[str, SeatrialError]]:
    """Arms, and by name the error of every path that can't be one."""
    paths = [model for model in models if not isinstance(model, Arm)]
    made, failed = arms_from_paths(paths, folder, grid)
    return [m for m in models if isinstance(m, Arm)] + made, failed


def _nothing(errors: Sequence[SeatrialError]) -> SeatrialError:
    """The one error there is, with its own exit code; else one that counts them."""
    if len(errors) == 1:
        return errors[0]
    found = "; ".join(f"{error.asked}: {error.found}" for error in errors) or "no model was given"
    return NothingMeasured("bench", found, "give bundles or model files")
