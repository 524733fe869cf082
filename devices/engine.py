"""The comparison engine: sittings of launches under one lease, `compare` with its planned looks, and `bench`.

This module is light: numpy, scipy and the store are imported when they are needed.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import NothingMeasured, SeatrialError
from ..core.ids import content_id
from . import facts as host
from . import lease
from .arms import Arm, Plan, arm_from_path, arms_from_paths
from .gate import FULL_LOOKS, QUICK_LOOKS, Decision, Rule, Verdict, judge, without_comparison
from .launches import Launch, OpenArm, run_launch

if TYPE_CHECKING:
    from .results import ArmSummary, BenchResult, Comparison
    from .store import Store

PROTOCOL = 1
BASE, AGAIN, CANDIDATE = "base", "base again", "candidate"
QUICK_ROUNDS = 6
Progress = Callable[[str], None]


class Sitting:
    """Launches of arms on this machine under one exclusive lease, each stored as soon as it is whole.

    A context manager. Logs of workers live as long as it does. Don't enter it in a thread that ends before
    it.

    Args:
        session: the id under which launches are stored; the same id goes on with the next launch number.
        store: where launches go, or None.
        device: the lease's name.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        seed: int | None = None,
        session: str | None = None,
        store: Store | None = None,
        progress: Progress | None = None,
        device: str = "local",
        purpose: str = "a measurement",
    ) -> None:
        self.plan = plan or Plan()
        self.seed = secrets.randbits(32) if seed is None else seed
        self.session = session or secrets.token_hex(8)
        self.store, self.progress = store, progress
        self.device, self.purpose = device, purpose
        self.facts: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.launches: list[Launch] = []
        self._kept: dict[str, OpenArm] = {}
        self._placed: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Sitting:
        with ExitStack() as stack:
            stack.enter_context(lease.exclusive(self.device, purpose=self.purpose, progress=self.progress))
            self._workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
            self.facts = host.host_facts()
            self._next = self.store.next_launch(self.session) if self.store else 0
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            for kept in self._kept.values():
                kept.close()
        finally:
            self._stack.close()

    def keep(self, arm: Arm) -> OpenArm:
        """Open an arm whose worker stays for all launches that name it: a search's resident reference."""
        self.drop(arm.name)
        self._kept[arm.name] = OpenArm(arm, self.plan, self._workdir / f"kept-{len(self._kept)}.log", self.counts)
        return self._kept[arm.name]

    def drop(self, name: str) -> None:
        """End a kept arm, if there is one of that name."""
        if name in self._kept:
            self._kept.pop(name).close()

    def launch(self, arms: Sequence[Arm], *, rounds: int | None = None) -> Launch:
        """One launch of these arms, stored when whole; what really ran is asked once for each artifact."""
        plan = replace(self.plan, rounds=rounds) if rounds else self.plan
        launch = run_launch(
            arms,
            plan,
            index=self._next,
            seed=self.seed,
            workdir=self._workdir,
            counts=self.counts,
            kept=self._kept,
            place={arm.same for arm in arms} - self._placed,
        )
        self._placed |= {run.same for run in launch.arms.values() if run.placement}
        self._next += 1
        self.launches.append(launch)
        if self.store:
            self.store.add([self._row(arm, launch) for arm in arms])
        return launch

    def _row(self, arm: Arm, launch: Launch) -> dict[str, Any]:
        run = launch.arms[arm.name]
        runtime = {"name": arm.target, "version": run.opened.get("version") or ""}
        return {
            "artifact": arm.artifact_id,
            "settings": content_id(dict(arm.settings)),
            "shapes": content_id(run.opened["shapes"]) if "shapes" in run.opened else "unknown",
            "fingerprint": host.fingerprint(self.facts, runtime),
            "protocol": PROTOCOL,
            "session": self.session,
            "launch": launch.index,
            "arm": arm.name,
            "status": run.status,
            "reason": run.reason,
            "cost_s": run.cost_s,
            "created": launch.started,
            "facts": {**self.facts, "runtime": runtime, "arm": arm.to_dict(), "plan": self.plan.to_dict()},
            "samples": {"run": asdict(run), "order": launch.order, "seed": launch.seed},
        }

    def say(self, text: str) -> None:
        """Tell how far it is."""
        if self.progress:
            self.progress(text)


def compare(
    base: str | Path | Arm,
    candidate: str | Path | Arm,
    *,
    tolerate: float = 0.01,
    detect: float | None = None,
    quick: bool = False,
    threads: int | None = None,
    seed: int | None = None,
    plan: Plan | None = None,
    store: Store | str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Whether `candidate` is slower than `base`; both are bundles, raw model files, or arms.

    A base that isn't there is no error: the verdict is NEW, and nothing is measured.

    Args:
        tolerate: REGRESS where it is proven slower by more than this fraction.
        detect: PASS where a slowdown of this fraction is excluded; 0.05, or 0.10 with `quick`.
        quick: one planned look at 5 launches of 6 rounds: weaker.

    Raises:
        UsageError: a path is no bundle or model, or the margins make no sense.
        CannotDo: a runtime is missing.
    """
    from .results import Comparison, summarise

    detect = (0.10 if quick else 0.05) if detect is None else detect
    rule = Rule(tolerate, detect, looks=QUICK_LOOKS if quick else FULL_LOOKS)
    plan = plan or Plan(rounds=QUICK_ROUNDS if quick else 12)
    start = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
        seed = secrets.randbits(32) if seed is None else seed
        b = _arm(candidate, folder / "candidate.npz", threads, seed)
        if not isinstance(base, Arm) and not Path(base).exists():
            return _new(str(base), b, rule, plan, seed)
        a = _arm(base, folder / "base.npz", threads, seed)
        where = _store(store, stack)
        sitting = Sitting(plan, seed=seed, store=where, progress=progress, purpose="seatrial compare")
        stack.enter_context(sitting)
        decision = decide(sitting, a, b, rule)
    launches = sitting.launches
    one, other = summarise(launches, a.named(BASE)), summarise(launches, b.named(CANDIDATE))
    decision = replace(decision, warnings=tuple(_doubts(one, other, rule)))
    seconds = time.monotonic() - start
    if a.same == b.same:  # what ran is asked once for each artifact
        other = replace(other, placement=one.placement, ran_precision=one.ran_precision)
    one, other = replace(one, arm=a), replace(other, arm=b)
    return Comparison(one, other, decision, rule, plan, sitting.seed, sitting.session, sitting.facts, launches, seconds)


def _new(base: str, candidate: Arm, rule: Rule, plan: Plan, seed: int) -> Comparison:
    from .results import ArmSummary, Comparison

    absent = ArmSummary(Arm(base, "", "", "", {}, ""), "missing", "no such file or folder")
    decision = without_comparison(f"there is no baseline {base}", baseline=False)
    only = ArmSummary(candidate, "unmeasured", None)
    return Comparison(absent, only, decision, rule, plan, seed, "", host.host_facts(), [], 0.0)


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
        where = _store(store, stack)
        sitting = Sitting(plan, seed=seed, store=where, progress=progress, purpose="seatrial bench")
        stack.enter_context(sitting)
        _bench_launches(sitting, arms)
    return _bench_result(sitting, arms, unusable, time.monotonic() - start)


def run_comparison(job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """A whole comparison as data: ``arms``, ``plan``, ``seed``, optionally ``session`` and ``store`` (URL).

    Answers ``{"session", "seed", "facts", "launches": [...]}``; see `launches.Launch.from_dict`.
    """
    arms = [Arm.from_dict(arm) for arm in job["arms"]]
    plan = Plan.from_dict(job.get("plan") or {})
    with ExitStack() as stack:
        where = _store(job.get("store"), stack)
        sitting = Sitting(plan, seed=job.get("seed"), session=job.get("session"), store=where, progress=progress)
        stack.enter_context(sitting)
        for count in range(1, plan.launches + 1):
            sitting.say(f"launch {count} of {plan.launches}")
            sitting.launch(arms)
    launches = [launch.to_dict() for launch in sitting.launches]
    return {"session": sitting.session, "seed": sitting.seed, "facts": sitting.facts, "launches": launches}


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


def _arm(x: str | Path | Arm, inputs: Path, threads: int | None, seed: int) -> Arm:
    return x if isinstance(x, Arm) else arm_from_path(x, inputs, Path(x).name, threads=threads, seed=seed)


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


def _store(store: Store | str | Path | None, stack: ExitStack) -> Store | None:
    if isinstance(store, (str, Path)):
        from .store import Store

        opened = Store(store)
        stack.callback(opened.close)
        return opened
    return store


__all__ = ["PROTOCOL", "Arm", "Decision", "Plan", "Rule", "Sitting", "Verdict", "bench", "compare", "decide"]
