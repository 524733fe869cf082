"""Sittings: launches of arms on this machine under one lease, each stored as soon as it is whole.

This module is light: numpy, scipy and the store are imported when they are needed.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.ids import content_id
from ..targets.profile import Profile, without_times
from . import facts as host
from . import lease
from .arms import Arm, Plan
from .launches import Launch, NoRoom, OpenArm, Setting, run_alternating, run_launch
from .operators import runs_of, with_modules
from .resident import ArmFailed

if TYPE_CHECKING:
    from .store import Store

PROTOCOL = 3
"""3: rounds are split into shorter ones; 2: all arms of a launch run on the same cores, as many as they have threads;
1 left that to the scheduler, in blocks of 40 ms."""
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
        self.alternating = False  # arms are in memory one at a time, because there is no room for all
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
        launch = self._launch(arms, plan)
        self._placed |= {run.same for run in launch.arms.values() if run.placement}
        self._next += 1
        self.launches.append(launch)
        if self.store:
            self.store.add([self._row(arm, launch) for arm in arms])
        return launch

    def _launch(self, arms: Sequence[Arm], plan: Plan) -> Launch:
        place = {arm.same for arm in arms} - self._placed
        how = Setting(plan, self._next, self.seed, self._workdir, self.counts, place)
        if not self.alternating:
            try:
                return run_launch(arms, how, self._kept)
            except NoRoom:
                self.alternating = True
                self.say("no room in memory for all models at once: they take turns")
        return run_alternating(arms, how)

    def profile(self, arm: Arm) -> Profile:
        """What the operators of an arm take, told by its runtime in a process of its own that isn't timed."""
        opened = OpenArm(
            replace(arm, streams=None), self.plan, self._workdir / f"profile-{arm.same[:16]}.log", self.counts
        )
        try:
            found = opened.ask("profile", self.plan.open_timeout_s, runs=runs_of(opened.run.k))
        except ArmFailed as failed:
            return without_times(f"profiling failed ({failed.status}): {opened.run.reason or failed.reason}")
        finally:
            opened.close()
        return with_modules(cast("Profile", found), Path(arm.artifact))

    def _row(self, arm: Arm, launch: Launch) -> dict[str, Any]:
        run = launch.arms[arm.name]
        runtime = {"name": arm.target, "version": run.opened.get("version") or ""}
        return {
            "artifact": arm.artifact_id,
            "settings": content_id(dict(arm.settings)),
            "shapes": content_id(run.opened["shapes"]) if "shapes" in run.opened else "unknown",
            "fingerprint": host.fingerprint(self.facts, runtime, run.gpu_bytes),
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


def run_comparison(job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
    """A whole comparison as data: ``arms``, ``plan``, ``seed``, optionally ``session`` and ``store`` (URL).

    Answers ``{"session", "seed", "facts", "launches": [...]}``; see `launches.Launch.from_dict`.
    """
    arms = [Arm.from_dict(arm) for arm in job["arms"]]
    plan = Plan.from_dict(job.get("plan") or {})
    with ExitStack() as stack:
        where = opened_store(job.get("store"), stack)
        sitting = Sitting(plan, seed=job.get("seed"), session=job.get("session"), store=where, progress=progress)
        stack.enter_context(sitting)
        for count in range(1, plan.launches + 1):
            sitting.say(f"launch {count} of {plan.launches}")
            sitting.launch(arms)
    launches = [launch.to_dict() for launch in sitting.launches]
    return {"session": sitting.session, "seed": sitting.seed, "facts": sitting.facts, "launches": launches}


def opened_store(store: Store | str | Path | None, stack: ExitStack) -> Store | None:
    """The store as it is, or opened from a URL or path until the stack ends."""
    if isinstance(store, (str, Path)):
        from .store import Store

        opened = Store(store)
        stack.callback(opened.close)
        return opened
    return store
