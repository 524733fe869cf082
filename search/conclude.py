"""The end of a search over many models: its front timed again, the chosen ones' settings tried, all of it packed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.bundle import MANIFEST
from ..core.errors import CheckFailed
from ..devices.launches import Launch
from ..exporter.program import Program
from ..exporter.proof.prove import Prover
from .candidate import LOCAL, Candidate, key_text
from .choose import Demand, nearest
from .evaluate import ALL_LOSS, GIVEN, INHERITED
from .findings import Findings, by_arm
from .fronts import SURE, Fronts
from .judge import judge
from .objectives import Objective
from .on_device import restricts
from .roster import TUNED, UNTRAINED, Tried, earlier
from .run import nothing
from .study import FILE, Study
from .trials import Trial, feasible
from .views import Views

if TYPE_CHECKING:
    from numpy import ndarray

    from .explore import Exploring
    from .several import Several


ROUNDS = 3
"""So often at most others come to a front because those that were there missed a bound when they were timed again."""


def conclude(search: Exploring, command: str) -> Study:
    """Choose, time again, choose by that, pack; write ``study.json`` and ``report.html``.

    Raises:
        NothingMeasured: no model was made, proven and timed.
        CheckFailed: none keeps to the constraints; the nearest is named.
    """
    models = models_of(search)
    first = fronts(search, models, [])
    _check(first)
    if search.evaluator.way == INHERITED:
        for key in _to_tune(search, models, first):
            search.say(f"training the chosen {key_text(key)} a little further")
            search.evaluator.tune(models[key].values)
        models = models_of(search)
        first = fronts(search, models, [])
    return finish(search, models, [*first.finalists, *variants(search, first)], origin(search, models, command))


def finish(search: Several, models: Mapping[str, Tried], chosen: Sequence[str], facts: Mapping[str, Any]) -> Study:
    """Time candidates again, choose by that, write ``study.json`` and ``report.html``, pack.

    Args:
        search: its facts are stored.
        models: that may be chosen, by key.
        chosen: ids of those to be timed again, where they haven't been.
        facts: as from `origin`.

    Raises:
        NothingMeasured: nothing can be chosen.
        CheckFailed: none keeps to the constraints; the nearest is named.
    """
    judge(search, [objective for objective in search.judged if objective.device])
    found = _timed_again(search, models, chosen)
    _check(found)
    study = written(search, found, {**facts, "confirmed": _confirmed(search, found)})
    for name in _places(search, found):
        if name not in found.winners and (search.folder / name / MANIFEST).exists():
            shutil.rmtree(search.folder / name)  # chosen by other constraints
    for name, each in study.winners.items():
        search.say(f"packing {name}")
        costs = study.costs_of(search.goals.all, found.trials[each].candidate.target)
        study.pack(each, search.folder / name, overwrite=True, cost=costs)
    return study


def written(search: Several, found: Fronts, facts: Mapping[str, Any]) -> Study:
    """Write ``study.json`` and ``report.html``.

    Args:
        search: its facts are stored.
        found: what is known by them.
        facts: as from `origin`, and ``confirmed``: accuracy by id on data that nothing was chosen by.
    """
    more = {**facts["more"], **_more(search, found), "notes": _notes(search, found, facts["more"]["notes"])}
    whole = {**facts, "key": search.key, "max_drop": ALL_LOSS, "seconds": search.seconds(), "more": more}
    search.settle()
    best = found.trials[found.winners["best"]]
    return Study.write(search.folder, found, Program.load(search.folder / best.work / "program"), whole)


def _timed_again(search: Several, models: Mapping[str, Tried], chosen: Sequence[str]) -> Fronts:
    """What is known after these were timed again, and whoever took the place of some that then missed a bound."""
    for _ in range(ROUNDS):
        search.time_again(chosen, search.trials.all(), search.seed + 1)
        found = fronts(search, models, search.trials.launches("confirm"))
        timed = {name for launch in found.confirmed for name in launch.arms}
        new = [id for id in found.finalists if id not in timed]
        if not new:
            break
        chosen = [*chosen, *new]
    return found


def _to_tune(search: Exploring, models: Mapping[str, Tried], first: Fronts) -> list[str]:
    """Keys of the chosen models whose inherited weights are to be trained further.

    They are chosen among inherited weights alone: so a search that a kill cut off within this tunes no others.
    Where no model came since the last choice, other objectives choose among what is stored and nothing is trained,
    unless it is wished for.
    """
    inherited = {key: one for key, one in models.items() if not key.endswith(TUNED)}
    before = Study.read(search.folder).document["models"] if (search.folder / FILE).exists() else {}
    known = {key for key, one in before.items() if one["status"] == "ok"}
    came = any(one.status == "ok" and key not in known for key, one in inherited.items())
    chosen = _chosen(first if len(inherited) == len(models) else fronts(search, inherited, []))
    if search.tune:
        chosen = list(dict.fromkeys([*chosen, *_chosen(first)]))
    # One that was begun and failed for want of time or memory is tried again like any other.
    due = [key for key in chosen if came or search.tune or key + TUNED in before]
    return [key for key in due if key in inherited and key + TUNED not in models]


def _chosen(found: Fronts) -> list[str]:
    """Keys of the chosen models, each once."""
    return list(dict.fromkeys(found.trials[id].candidate.model for id in found.winners.values()))


def models_of(search: Several) -> dict[str, Tried]:
    """What was evaluated, the chosen ones also as they were trained further."""
    return {one.model: one for one in search.roster.all().values() if not one.model.endswith(UNTRAINED)}


def fronts(
    search: Several, models: Mapping[str, Tried], confirmed: Sequence[Launch], targets: Collection[str] | None = None
) -> Fronts:
    """What is known by now, with these launches of those that were timed again; by default of all targets."""

    def counts(candidate: Candidate) -> bool:
        mine = targets is None or candidate.target in targets
        return mine and candidate.model in models and candidate.target not in search.left_out

    trials = {id: trial for id, trial in search.trials.all().items() if counts(trial.candidate)}
    raced = _shared(search.trials.outlines("race"), trials)
    latency = Findings(trials, raced, confirmed).latency
    found = Fronts(trials, raced, confirmed, search.goals, search.values(trials, models, latency), models)
    return replace(found, each=_each(search, [found.trials[id] for id in found.front]))


def _shared(raced: Sequence[Launch], trials: Mapping[str, Trial]) -> Sequence[Launch]:
    """The launches of models that were timed before they were trained, or trained further, as theirs, too."""
    holding = by_arm(raced)
    for id, trial in trials.items():
        for before in earlier(trial.candidate):
            for launch in holding.get(before, ()):
                launch.arms.setdefault(id, launch.arms[before])
    return raced


def _each(search: Several, some: Sequence[Trial]) -> dict[str, dict[str, ndarray]]:
    """What each example gave, by objective and trial, of objectives that are means over examples."""
    document = {"key": search.key, "candidates": [{"model": t.candidate.model, "status": "ok"} for t in some]}
    found: dict[str, dict[str, ndarray]] = {}
    with closing(Views(search.folder, document, search.store, {t.id: t for t in some})) as views:
        known = {**views.added, "accuracy": Objective("accuracy", "accuracy", "max")}
        for name in search.goals.names if some else ():
            for trial in some if name in known and views.labels() is not None else ():
                values = views.each(known[name], trial)
                if values is not None:
                    found.setdefault(name, {})[trial.id] = values
    return found


def _check(found: Fronts) -> None:
    """Somebody is there to choose."""
    if not found.known:
        reasons = {key_text(one.model): one.reason or _why(found, one.model) for one in found.models.values()}
        raise nothing("no model could be made, proven and timed", reasons, "see the reasons; correct the study file")
    if not found.able_ids:
        demand = Demand(found.goals.names[0], found.goals.direction(found.goals.names[0]), found.goals.bounds)
        rows = [found.facts(trial) for trial in found.known]
        raise CheckFailed(demand.text, *nearest(rows, found.values, demand))


def _why(found: Fronts, model: str) -> str:
    """Of a model that was evaluated, why none of its deployments can be chosen."""
    mine = [trial for trial in found.trials.values() if trial.candidate.model == model]
    lacking = [name for name in found.goals.names for t in mine if t.id not in found.values[name]]
    reasons = [found.reason(trial) for trial in mine] + [f"{name} isn't known" for name in lacking]
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def variants(search: Several, found: Fronts, targets: Collection[str] | None = None) -> list[str]:
    """The chosen ones of each place with all settings and numbers of threads: those that are feasible."""
    ids: list[str] = []
    for id in dict.fromkeys(found.winners.values()):
        chosen = found.trials[id].candidate
        if targets is not None and chosen.target not in targets:
            continue
        wanted = search.deployments.variants(chosen)
        known = search.trials.all([c.id for c in wanted])
        search.make(chosen.model, [c for c in wanted if c.id not in known])
        ids += [t.id for t in feasible(list(search.trials.all([c.id for c in wanted]).values())) if t.id != id]
    return ids


def _confirmed(search: Several, found: Fronts) -> dict[str, float]:
    """Accuracy of the finalists on "test", which nothing is chosen by."""
    confirmed = {}
    for id in dict.fromkeys([*found.finalists, *found.winners.values()]):
        trial = found.trials[id]
        work = search.folder / trial.work
        accuracy = Prover(Program.load(work / "program"), work / "proof").confirm(search.folder / str(trial.outputs))
        if accuracy:
            confirmed[id] = accuracy.found
    return confirmed


def origin(search: Exploring, models: Mapping[str, Tried], command: str) -> dict[str, Any]:
    """What only a search knows: ``title``, ``command`` and ``more``."""
    goals = search.goals
    ways = [one.trained for one in models.values() if one.trained]
    trained = sum(way not in (GIVEN, INHERITED) for way in ways)
    looked = {key.removesuffix(UNTRAINED) for key in search.roster.all() if key.endswith(UNTRAINED)}
    more = {
        "source": {"name": search.study.path.name, "id": search.study.id},
        "goals": {
            "objectives": [{"name": name, "direction": goals.direction(name)} for name in goals.names],
            "constraints": [str(bound) for bound in goals.bounds],
            "described": list(goals.described),
        },
        "trainings": {
            "shared": int(search.ranks.text is not None),
            "to check ranks": search.ranks.n,
            "of models": trained,
            "spared": len(looked - models.keys()),
        },
        "notes": [search.ranks.text] if search.ranks.text else [],
    }
    return {"title": search.study.path.resolve().parent.name, "command": command, "more": more}


def _more(search: Several, found: Fronts) -> dict[str, Any]:
    """What only a study of many models has to tell, whoever looks at it."""
    deployed = search.deployments
    return {
        "deployed": {
            "targets": list(deployed.targets),
            "precisions": list(deployed.precisions),
            "threads": deployed.threads,
        },
        "devices": {name: restricts(profile) for name, profile in deployed.devices.items()},
        "fronts": found.fronts,
        "models": {
            key: {k: v for k, v in vars(one).items() if k not in ("model", "times")}
            for key, one in found.models.items()
        },
    }


def _places(search: Several, found: Fronts) -> list[str]:
    """Each target on each device: those of the search, and those that the study was widened by."""
    return list(dict.fromkeys([*search.deployments.places, *(t.candidate.place for t in found.trials.values())]))


def _notes(search: Several, found: Fronts, told: Sequence[str]) -> list[str]:
    notes = [*told, *(f"{name} is left out: {why}" for name, why in search.left_out.items())]
    names = found.goals.names
    if len(names) > 1:
        kept = " who keeps to the constraints" if found.goals.bounds else ""
        where = "target and device" if len(search.deployments.devices) > 1 else "target"
        words = f"on each {where} nobody{kept} is proven better by {names[0]} than what was chosen"
        notes.append(f"{words}; among equals {' and then '.join(names[1:])} decided")
    notes += _inherited(found)
    for place in _places(search, found):
        if place not in found.winners:
            notes.append(f"{place}: nothing was chosen, {_why_none(found, place)}")
    unsure = [str(b) for b in found.goals.bounds if found.holds(b, found.winners["best"]) < SURE]
    if unsure:
        notes.append(f"not sure at 95 % for the best: {', '.join(unsure)}")
    restricted = [name for name in search.deployments.devices if name != LOCAL]
    if restricted:
        notes.append(f"{', '.join(restricted)}: a profile restricts this machine; it doesn't make it another one")
    notes.append("latencies are valid for this machine and session; run `seatrial bench` on the device that counts")
    return notes


def _why_none(found: Fronts, place: str) -> str:
    """Of a place without a front."""
    if any(trial.candidate.place == place for trial in found.known):
        return "no model keeps to the constraints there"
    reasons = Counter(str(found.reason(t)) for t in found.trials.values() if t.candidate.place == place)
    told = f": {reasons.most_common(1)[0][0]}" if reasons else ""
    return f"no model could be proven and timed there{told}"


def _inherited(found: Fronts) -> list[str]:
    """Of each chosen model with inherited weights, why they were not trained further."""
    notes = []
    for key in _chosen(found):
        if found.models[key].trained != INHERITED:
            continue
        tuned = found.models.get(key + TUNED)
        why = "the same command with --tune trains them further"
        if tuned is not None:
            why = (
                "trained further it was not chosen" if tuned.status == "ok" else f"training them failed: {tuned.reason}"
            )
        ids = [id for id in found.winners.values() if found.trials[id].candidate.model == key]
        places = dict.fromkeys(found.trials[id].candidate.place for id in ids)
        notes.append(f"{', '.join(places)}: the chosen {key_text(key)} has inherited weights; {why}")
    return notes
