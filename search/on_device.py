"""Stored artifacts timed on a device profile, in launches of their own: nothing is trained, converted or proven."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import NothingMeasured, UsageError
from ..core.ids import content_id
from ..core.process import Limits
from ..devices.arms import Arm
from ..devices.device_profile import DeviceProfile, device_profile
from ..devices.launches import ArmRun, Launch
from ..devices.sitting import Sitting
from ..devices.stats import t_interval
from . import race
from .candidate import LOCAL
from .findings import Findings
from .folder import study_folder
from .making import arm_of
from .objectives import CONFIDENCE, Estimate, Objective, timed
from .replay import plainness
from .trials import Trial, feasible
from .underway import Underway

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timed:
    """What it took to time a study's artifacts on a device.

    Attributes:
        launches: how many; those that were there before aren't counted.
        failed: why, by label, of candidates that failed there.
        stands_for: of each candidate that becomes the same there as another one, that one's id, which was timed.
        notes: what a reader should know.
    """

    launches: int
    failed: dict[str, str]
    stands_for: dict[str, str]
    notes: list[str]


def described(name: str) -> dict[str, Any]:
    """A profile as data of an objective: what it is called, and what it restricts.

    Raises:
        UsageError: no such profile, or a bad file.
        CannotDo: it has more cores than there are here.
    """
    found = device_profile(name)
    _ = found.core_set
    return {"name": Path(name).stem if name.endswith(".toml") else name, "profile": restricts(found)}


def restricts(profile: DeviceProfile) -> dict[str, Any]:
    """What a profile restricts, whatever it is called, as JSON data."""
    return {name: value for name, value in asdict(profile).items() if name != "description"}


def time_all(folder: Path, key: str, objective: Objective, able: Sequence[Trial], say: Say) -> Timed:
    """Time candidates on an objective's device, those near their target's fastest until that is decided.

    Candidates that its settings make the same are timed once. What is stored isn't timed again.

    Args:
        folder: the study's.
        key: of the study.
        objective: it has a device.
        able: candidates that may be chosen.
        say: takes one line about each launch.

    Raises:
        NothingMeasured: what all are held against failed there.
        UsageError: a search is writing to the folder.
    """
    with study_folder(folder, key, False) as place, Underway(place, key, Limits(), say) as up:
        return time_in(up, objective, able)


def time_in(up: Underway, objective: Objective, able: Sequence[Trial], screen: bool = False) -> Timed:
    """As `time_all`, within a search that has the study's folder.

    Args:
        up: the search.
        objective: it has a device.
        able: candidates that may be chosen.
        screen: one launch each is enough.
    """
    asked = [t for t in able if objective.targets is None or t.candidate.target in objective.targets]
    profile, stage = _profile(objective), stage_of(objective)
    launches = up.trials.launches(stage)
    before = len(launches)
    seen = {name for launch in launches for name in launch.arms}
    stands_for = _stand_ins(asked, profile, seen)
    known = {t.id: t for t in asked if t.id not in stands_for}
    arms = {id: _there(up.folder, trial, profile) for id, trial in known.items()}
    groups: dict[str, list[str]] = {}
    for id, trial in known.items():
        groups.setdefault(trial.candidate.target, []).append(id)

    def due() -> race.Next:
        step = race.plan(launches, groups)
        return step if not screen or step.rounds == race.SCREEN_ROUNDS else race.Next([])

    if due().ids:
        with up.sitting(stage, 0) as sitting, up.timed("measure on devices"):
            launches[:] = up.trials.launches(stage)  # another process may have timed some while we waited
            before = len(launches)
            trial = _reference(up, stage, able, list(known.values()), profile)
            first = _there(up.folder, trial, profile).named(race.REFERENCE)
            sitting.keep(first)
            while (step := due()).ids:
                labels = ", ".join(known[id].candidate.label for id in step.ids)
                up.say(f"timing on {_name(objective)}, launch {len(launches) + 1}: {labels}")
                some = [first, *(arms[id] for id in step.ids)]
                launches.append(_launched(sitting, some, step.rounds, objective))
    why = race.failures(launches)
    failed = {known[id].candidate.label: text for id, text in why.items() if id in known}
    return Timed(len(launches) - before, failed, stands_for, _notes(known, arms, objective))


def estimates(objective: Objective, trials: Mapping[str, Trial], launches: Sequence[Launch]) -> dict[str, Estimate]:
    """A timed objective of each candidate that was timed and never failed, by id.

    Args:
        objective: it has a device.
        trials: of the study, by id.
        launches: of the stage `stage_of` the objective.
    """
    failed = race.failures(launches)
    if objective.measure == "latency_ms":
        latency = Findings(trials, launches).latency
        found = {id: timed(x.ms, x.low_ms, x.high_ms, x.launches) for id, x in latency.items()}
    else:
        found = medians(objective.measure, (run for launch in launches for run in launch.arms.values()))
    return {id: estimate for id, estimate in found.items() if id in trials and id not in failed}


def medians(measure: str, runs: Iterable[ArmRun]) -> dict[str, Estimate]:
    """Of a measure in `OF_RUN`, each arm's median over those of its runs that worked, by the arm's name.

    As of any time, its logarithm has Student's interval over the runs, each of which is a launch.
    """
    values: dict[str, list[float]] = {}
    for run in runs:
        value = OF_RUN[measure](run) if run.ok else None
        if value is not None:
            values.setdefault(run.name, []).append(value)
    return {name: _median(some) for name, some in values.items()}


def _median(values: Sequence[float]) -> Estimate:
    interval = t_interval([math.log(x) for x in values], CONFIDENCE)
    low, high = (math.exp(x) if math.isfinite(x) else None for x in (interval.low, interval.high))
    return timed(statistics.median(values), low, high, len(values))


def ratio(launches: Sequence[Launch], a: str, b: str) -> Estimate | None:
    """Time of `a` over time of `b` on the device, with its interval (99 %); None where one was not timed."""
    logs = race.gap(launches, b, a)
    if not logs:
        return None
    if len(logs) < 2:
        return Estimate(math.exp(logs[0]), n=1)
    interval = t_interval(logs, race.CONFIDENCE)
    low, centre, high = (math.exp(x) for x in (interval.low, interval.centre, interval.high))
    return Estimate(centre, low, high, len(logs))


def stage_of(objective: Objective) -> str:
    """The name under which the launches on an objective's device are stored: of what it restricts, however called."""
    assert objective.device
    return f"on-{content_id(objective.device['profile'])}"


def p95_ms(run: ArmRun) -> float | None:
    """95th percentile of the times of one inference, in ms."""
    import numpy as np

    times = [ns for block in run.blocks for ns in block]
    return float(np.percentile(times, 95)) / 1e6 if times else None


def peak_bytes(run: ArmRun) -> float | None:
    """Resident memory of the worker with the model in it, in bytes, at its highest."""
    return None if run.peak_rss_bytes is None else float(run.peak_rss_bytes)


OF_RUN: dict[str, Callable[[ArmRun], float | None]] = {"latency_p95_ms": p95_ms, "peak_memory_bytes": peak_bytes}
"""Objectives that each launch tells for itself; a candidate has their median."""


def _profile(objective: Objective) -> DeviceProfile:
    assert objective.device
    return DeviceProfile(description="", **objective.device["profile"])


def _name(objective: Objective) -> str:
    assert objective.device
    return str(objective.device["name"])


def _there(folder: Path, trial: Trial, profile: DeviceProfile) -> Arm:
    """A trial's arm, called after it, as it is on the device."""
    return arm_of(folder, replace(trial, candidate=trial.candidate.on(LOCAL, profile)), trial.id)


def _same(asked: Sequence[Trial], profile: DeviceProfile) -> list[list[Trial]]:
    """Candidates that are the same there, together."""
    same: dict[str, list[Trial]] = {}
    for trial in asked:
        key = content_id([trial.candidate.target, trial.artifact_id, trial.candidate.precision, _set(trial, profile)])
        same.setdefault(key, []).append(trial)
    return list(same.values())


def _set(trial: Trial, profile: DeviceProfile) -> dict[str, Any]:
    """A trial's settings there."""
    return dict(trial.candidate.on(LOCAL, profile).settings)


def _stand_ins(asked: Sequence[Trial], profile: DeviceProfile, seen: Collection[str]) -> dict[str, str]:
    """Who is another one there, and which: one that was timed, else that has the device's settings, is the plainest."""

    def order(trial: Trial) -> tuple[Any, ...]:
        return trial.id not in seen, _set(trial, profile) != dict(trial.candidate.settings), plainness(trial)

    found: dict[str, str] = {}
    for some in _same(asked, profile):
        first = min(some, key=order)
        found |= {trial.id: first.id for trial in some if trial is not first}
    return found


def for_all(objective: Objective, trials: Sequence[Trial], found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Estimates on an objective's device also of candidates that are the same there as one that was timed.

    Args:
        objective: it has a device.
        trials: who may have one.
        found: of those that were timed, by id.
    """
    every = dict(found)
    for some in _same(feasible(trials), _profile(objective)):
        timed_ones = [found[trial.id] for trial in some if trial.id in found]
        if timed_ones:
            most = max(timed_ones, key=lambda estimate: estimate.n or 0)
            every |= {trial.id: most for trial in some if trial.id not in found}
    return every


def _reference(
    up: Underway, stage: str, able: Sequence[Trial], known: Sequence[Trial], profile: DeviceProfile
) -> Trial:
    """What every launch holds: that of the first one stays; else the smallest default, which fits if anything does.

    Raises:
        UsageError: that of the first launch isn't among the candidates any more.
    """
    whole = up.trials.session(stage).partition("@")[0]
    stored = [row for row in up.store.sessions(whole) if row["arm"] == race.REFERENCE and row["status"] == "ok"]
    if not stored:
        return min(known, key=lambda t: (not t.candidate.is_default, t.size_bytes or 0, t.id))
    was = stored[0]["facts"]["arm"]
    for trial in able:
        if (trial.artifact_id, _set(trial, profile)) == (was["artifact_id"], was["settings"]):
            return trial
    found = "what its first launch held all others against is none of its candidates any more"
    raise UsageError(f"the study {up.folder}", found, "search again with --overwrite")


def _launched(sitting: Sitting, arms: list[Arm], rounds: int, objective: Objective) -> Launch:
    launch = sitting.launch(arms, rounds=rounds)
    run = launch.arms[race.REFERENCE]
    if not run.ok:
        asked, found = f"timing on {_name(objective)}", f"what all are held against failed there: {run.reason}"
        raise NothingMeasured(asked, found, "choose a profile with more memory, or other settings")
    return launch


def _notes(known: Mapping[str, Trial], arms: Mapping[str, Arm], objective: Objective) -> list[str]:
    """Whose file was timed with other settings than its bundle would have."""
    notes = []
    for id, trial in known.items():
        own = dict(trial.candidate.settings)
        other = [f"{k}={v}" for k, v in sorted(arms[id].settings.items()) if own.get(k) != v]
        if other:
            notes.append(f"{trial.candidate.label} was timed with {', '.join(other)}, as {_name(objective)} has it")
    return notes
