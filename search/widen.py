"""A finished study on runtimes that it did not try: no capture, no training, and only what its finalists suggest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.process import Limits
from ..devices.device_profile import DeviceProfile
from ..devices.facts import cpu_flags, host_facts
from ..devices.store import Store
from ..targets import get, require
from . import race, ranks
from .candidate import Candidate, candidates, key_text
from .choose import Bound
from .conclude import finish, fronts, models_of, variants
from .evaluate import REFERENCE_FILE, Deployments
from .findings import Findings
from .folder import study_folder, sweep
from .goals import Goals
from .judge import judge
from .kept import Kept
from .making import arm_of
from .roster import TUNED, earlier
from .run import Running
from .several import Several, Widened, keep_widened, widened
from .trials import AGAIN, Trial, feasible

if TYPE_CHECKING:
    from .study import Study

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What it took."""

    conversions: int
    launches: int
    seconds: float


def widen(study: Study, targets: Sequence[str], say: Say) -> Work | None:
    """Convert, prove and time for each new target what the finalists are: their models, precisions and threads.

    `study` knows of it afterwards, and its bundles are packed again. What a kill left undone the same call does. Of a
    study of many models that was searched further since, it does what new finalists lack.

    Returns:
        None where nothing was to be done.

    Raises:
        UsageError: no such target, or the study was made on another machine or by other runtimes.
        CannotDo: a target is not installed here.
    """
    tried, since = {c["target"] for c in study.candidates}, widened(study.folder)
    names = list(dict.fromkeys(targets))
    new = [name for name in names if name not in tried or (name in since and not since[name].whole)]
    many = "models" in study.document
    start, said = time.monotonic(), []

    def heard(text: str) -> None:
        said.append(text)
        say(text)

    if many:
        again = _many(study, [name for name in names if name in new or name in since], new, heard)
    else:
        again = _one(study, new, heard) if new else None
    if again is None:
        return None
    study.document.clear()
    study.document.update(again.document)
    made = [text for text in said if text.startswith(("converting ", "making "))]
    launches = [text for text in said if text.startswith(("timing ", "timing, ", "confirming "))]
    return Work(len(made), len(launches), time.monotonic() - start)


def _one(study: Study, new: Sequence[str], say: Say) -> Study:
    """Of a search of one given model."""
    document, drop = study.document, study.document["max_drop"]
    with (
        study_folder(study.folder, document["key"], False) as place,
        Running(place, document["key"], Limits(), say, drop) as running,
        _noted(study, new),
    ):
        running.making.load()
        space = _space(running, new)
        say(f"to convert, prove and time: {', '.join(candidate.label for candidate in space)}")
        running.prove_all(space)
        running.race(0)
        return running.finish(document["title"], drop, document["command"])


def _space(running: Running, targets: Sequence[str]) -> list[Candidate]:
    """The defaults of the new targets in the precisions and threads of the finalists."""
    trials = running.trials
    found = Findings(trials.all(), trials.launches("race"), trials.launches("confirm"))
    finalists = [found.trials[each].candidate for each in found.finalists]
    precisions = list(dict.fromkeys(c.precision for c in finalists))
    threads = sorted({dict(c.settings)["threads"] for c in finalists})
    return [c for c in candidates(targets, precisions, threads, cpu_flags()) if c.is_default]


@contextmanager
def _noted(study: Study, names: Sequence[str]) -> Iterator[None]:
    """Check that these runtimes may be added here, and write down that they are, and when the block is done.

    Raises:
        UsageError: times of two machines or versions would meet.
        CannotDo: one is not installed here.
    """
    versions = {name: require(name).version() for name in names}
    check_host(study)
    for name, one in widened(study.folder).items():
        if versions.get(name, one.version) != one.version:
            found = f"the study has it with version {one.version}, here is {versions[name]}"
            raise UsageError(f"--target {name}", found, "search here anew, or add it where that version is")
    keep_widened(study.folder, {name: Widened(version) for name, version in versions.items()})
    yield
    keep_widened(study.folder, {name: Widened(version, whole=True) for name, version in versions.items()})


def _many(study: Study, asked: Sequence[str], new: Sequence[str], say: Say) -> Study | None:
    """Of a search over many models; None where nothing is due."""
    if not asked:
        return None
    goals, deployments = _goals(study), _deployments(study)
    key = study.document["key"]
    with (
        study_folder(study.folder, key, False) as place,
        Several(place, key, Limits(), say, None, goals, deployments, 0) as search,
    ):
        sweep(place)
        space = _of_finalists(search, asked)
        known = search.trials.all([c.id for c in space])
        again = [id for id, trial in known.items() if trial.status == "failed" and trial.kind in AGAIN]
        due = [c for c in space if c.id not in known or c.id in again]
        if not due and not new:
            return None
        _check_any(new, space)
        with _noted(study, asked):
            search.trials.forget(again)
            return _widened(study, search, asked, space, due)


def _widened(
    study: Study, search: Several, asked: Sequence[str], space: Sequence[Candidate], due: Sequence[Candidate]
) -> Study:
    """Make, time, choose."""
    document = study.document
    for model in dict.fromkeys(c.model for c in due):
        search.make(model, [c for c in due if c.model == model])
    _time(search, space)
    judge(search, search.judged)
    models = models_of(search)
    first = fronts(search, models, [])
    chosen = [id for id in first.finalists if first.trials[id].candidate.target in asked]
    chosen += variants(search, first, asked)
    beside = [id for id in study.winners.values() if study.candidate(id)["target"] not in asked]
    more = {name: document[name] for name in ("source", "goals", "trainings")}
    facts = {"title": document["title"], "command": document["command"], "more": more}
    more["notes"] = [text] if (text := ranks.told(search.work).get("text")) else []
    return finish(search, models, list(dict.fromkeys([*chosen, *beside])), facts)


def _of_finalists(search: Several, targets: Sequence[str]) -> list[Candidate]:
    """The finalists' models on other targets, each in all precisions of the finalists, on each device."""
    found = fronts(search, models_of(search), [], search.deployments.targets)
    finalists = [found.trials[id].candidate for id in dict.fromkeys([*found.finalists, *found.winners.values()])]
    precisions = tuple(dict.fromkeys(c.precision for c in finalists))
    there = replace(search.deployments, targets=tuple(targets), precisions=precisions)
    return [c for model in dict.fromkeys(c.model for c in finalists) for c in there.of(model)]


def _check_any(new: Sequence[str], space: Sequence[Candidate]) -> None:
    for name in new:
        if not any(c.target == name for c in space):
            found = "it runs none of the finalists' precisions on this CPU"
            raise UsageError(f"--target {name}", found, "search with it among the study file's targets")


def _time(search: Several, space: Sequence[Candidate]) -> None:
    """One launch for each model with what wasn't timed yet, against the reference of the search."""
    raced = search.trials.outlines("race")
    timed = {name for launch in raced if launch.arms[race.REFERENCE].ok for name in launch.arms}
    able = feasible(list(search.trials.all([c.id for c in space]).values()))
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(able, key=lambda t: t.candidate.model.endswith(TUNED)):
        if not timed & {trial.id, *earlier(trial.candidate)}:  # of the same graph one is enough
            timed.add(trial.id)
            groups.setdefault(trial.candidate.model, []).append(trial)
    if not groups:
        return
    id = json.loads((search.work / REFERENCE_FILE).read_text())["trial"]
    reference = search.trials.all([id])[id]
    first = arm_of(search.folder, reference, race.REFERENCE)
    with search.sitting("race", search.seed) as sitting:
        sitting.keep(first)
        for model, some in groups.items():
            search.say(f"timing {len(some)} deployments of {key_text(model)}")
            arms = [first, *(arm_of(search.folder, trial) for trial in some)]
            search.launch(sitting, arms, race.SCREEN_ROUNDS, reference)


def _goals(study: Study) -> Goals:
    """What was wanted last; objectives that a study file describes are kept like those that were added."""
    facts, wanted = study.folder / "facts.sqlite", study.document["goals"]
    if not facts.exists():
        raise UsageError(f"the study {study.folder}", "its facts.sqlite is gone", "run the search again")
    with closing(Store(facts)) as store:
        added = Kept(store, study.document["key"]).all()
    names = tuple(each["name"] for each in wanted["objectives"])
    return Goals(names, tuple(map(Bound.read, wanted["constraints"])), {}, study.folder, added)


def _deployments(study: Study) -> Deployments:
    """What the search deployed every model as."""
    told = study.document.get("deployed")
    if told is None:
        todo = "run the same search again: it goes on, and writes it"
        raise UsageError(f"the study {study.folder}", "an earlier version wrote it without its deployments", todo)
    devices = {name: DeviceProfile("", **profile) for name, profile in study.document["devices"].items()}
    return Deployments(tuple(told["targets"]), tuple(told["precisions"]), told["threads"], devices)


def check_host(study: Study) -> None:
    """Times of two machines, or of two versions of a runtime, must not meet in one study.

    Raises:
        UsageError: the study was made elsewhere.
    """
    was, here = study.document["host"], host_facts()["identity"]
    now: dict[str, Any] = {name: get(name).version() for name in was["runtimes"]}
    if (was["cpu"], was["flags"], was["cores"]) != (here["cpu"], here["flags"], here["cores"]):
        found = f"it was made on {was['cpu']}, this is {here['cpu']}"
    elif now != was["runtimes"]:
        found = f"it was made with other versions: {was['runtimes']}; here are {now}"
    else:
        return
    raise UsageError(f"the study {study.folder}", found, "search here anew, or add it where the study was made")
