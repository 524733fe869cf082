"""A search under way: its store, what its stages took, and its launches; every step looks first at what is stored."""

from __future__ import annotations

import fcntl
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from ..core.errors import NothingMeasured, UsageError
from ..core.paths import whole_file, writing
from ..core.process import Limits
from ..devices.arms import Arm, Plan
from ..devices.launches import Launch
from ..devices.sitting import Sitting
from ..devices.store import Store, measurements
from . import race
from .carry import carry, claim_home
from .folder import sweep, write_once
from .making import arm_of
from .trials import Trial, Trials

Say = Callable[[str], None]
Runs = tuple[str | None, Mapping[str, Any], Mapping[str, Any]]
"""Artifact, settings and limits."""
CONFIRM_LAUNCHES = 6
"""Of the winners and of those that they must beat."""


class Underway:
    """What a search of one given model and one over many have in common.

    Args:
        folder: the study's.
        key: id of the search.
        limits: of each converter.
        say: takes one line about each step as it starts.
        store: where facts are kept, as a URL; by default a file in the folder.
        host: see `Trials`; other processes may be at the same search.
    """

    def __init__(
        self, folder: Path, key: str, limits: Limits, say: Say, store: str | None = None, host: str = ""
    ) -> None:
        self.folder, self.key, self.limits, self.say = folder, key, limits, say
        self.work = folder / "work"
        if not host:
            sweep(folder)
        own = folder / "facts.sqlite"
        self.store = Store(store or own)
        self.elsewhere = self.store.url != f"sqlite:///{own.absolute()}"
        if self.elsewhere:
            self._begin_elsewhere(own)
        self.trials = Trials(self.store, key, host)

    def _begin_elsewhere(self, own: Path) -> None:
        """Facts speak of files in one folder; those that an earlier run kept in it come along."""
        mark = write_once(self.work / "mark", secrets.token_hex(8))
        found = claim_home(self.store, self.key, mark, str(self.folder.resolve()))
        if found:
            todo = "give that folder to -o, on a file system that all share, or give another database"
            raise UsageError(f"the facts in {self.store.shown}", f"they are of the study in {found}", todo)
        if own.exists():
            with closing(Store(own)) as earlier:
                carry(earlier, self.store, self.key)

    def settle(self) -> None:
        """Let the study's folder hold its facts, where they are kept elsewhere: it is read without them."""
        if self.elsewhere:
            with closing(Store(self.folder / "facts.sqlite")) as own:
                carry(self.store, own, self.key, newest=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.store.close()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the block takes to the stage's cost."""
        start = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - start
            with writing(f"the study {self.folder}"), (self.work / "costs.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                costs = self.seconds()
                costs[stage] = costs.get(stage, 0.0) + took
                with whole_file(self.work / "costs.json") as part:
                    part.write_text(json.dumps(costs))

    def seconds(self) -> dict[str, float]:
        """What each stage took, over all runs of this search; of a killed one, its finished steps."""
        file = self.work / "costs.json"
        found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def sitting(self, stage: str, seed: int) -> Sitting:
        """A session of a stage."""
        return Sitting(
            Plan(launches=CONFIRM_LAUNCHES),
            seed=seed,
            session=self.trials.session(stage),
            store=self.store,
            progress=self.say,
            purpose="seatrial search",
        )

    def reference(self, able: Sequence[Trial]) -> Trial:
        """What every launch holds: that of the first one stays, also where candidates came later.

        One that never ran is no reference: another takes its place.
        """
        ok = measurements.c.status == "ok"
        first = self._references(ok, 1)
        for trial in able:
            if _runs(trial) in first:
                return trial
        failed = [] if first else self._references(~ok)

        def oddity(trial: Trial) -> tuple[Any, ...]:
            one = trial.candidate
            odd = bool(one.restricts), not one.is_default, one.precision != "fp32", trial.id
            return failed.count(_runs(trial)), *odd

        return min(able, key=oddity)

    def _references(self, which: sa.ColumnElement[bool], most: int | None = None) -> list[Runs]:
        """What ran as the reference, the oldest first."""
        query = sa.select(measurements.c.facts).where(measurements.c.session == self.trials.session("race"), which)
        query = query.where(measurements.c.arm == race.REFERENCE).order_by(measurements.c.id).limit(most)
        return [_ran(json.loads(facts)["arm"]) for (facts,) in self.store.ask(query)]

    def launch(self, sitting: Sitting, arms: list[Arm], rounds: int, reference: Trial) -> Launch:
        """Time arms, the first of which is the reference.

        Raises:
            NothingMeasured: the reference failed, so that nothing was learned of the others.
        """
        with self.timed("measure"):
            launch = sitting.launch(arms, rounds=rounds)
            self.trials.outline("race")
        run = launch.arms[race.REFERENCE]
        if not run.ok:
            found = f"the reference {reference.candidate.label} failed while it was timed: {run.reason}"
            raise NothingMeasured("the search", found, "run the same command again: it goes on")
        return launch

    def time_again(self, chosen: Sequence[str], known: Mapping[str, Trial], seed: int) -> None:
        """Time candidates once more, all together: fresh processes, a fresh session, fresh samples.

        Until each has its launches: those that came when others were done are timed beside them.
        """
        launches = self.trials.launches("confirm")
        left = _left(launches, chosen)
        if not left:
            return
        with self.sitting("confirm", seed) as sitting:
            while left:
                chosen = [each for each in chosen if each not in race.failures(launches)]
                self.say(
                    f"confirming {len(chosen)} candidates, launch {CONFIRM_LAUNCHES + 1 - left} of {CONFIRM_LAUNCHES}"
                )
                with self.timed("confirm"):
                    launches.append(sitting.launch([arm_of(self.folder, known[each]) for each in chosen]))
                left = _left(launches, chosen)


def _left(launches: Sequence[Launch], chosen: Sequence[str]) -> int:
    """How many launches are missing for the one that has had the fewest; those that failed in one need none."""
    failed = race.failures(launches)
    counts = [sum(each in launch.arms for launch in launches) for each in chosen if each not in failed]
    return max(0, CONFIRM_LAUNCHES - min(counts, default=CONFIRM_LAUNCHES))


def _runs(trial: Trial) -> Runs:
    return trial.artifact_id, dict(trial.candidate.settings), trial.candidate.limits


def _ran(arm: Mapping[str, Any]) -> Runs:
    """The same of a stored arm."""
    return arm["artifact_id"], dict(arm["settings"]), dict(arm.get("limits", {}))
