"""Objectives that were added to a study, of models that came after them: what they need is run by the search itself."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import UsageError
from ..exporter.program import Program
from . import on_device
from .again import examples_of
from .objectives import Objective
from .replay import kept_examples, replay, replayed_file, taken
from .roster import UNTRAINED
from .trials import Trial, feasible
from .underway import Underway


def judge(up: Underway, wanted: Sequence[Objective], model: str | None = None) -> None:
    """Run the artifacts that may be chosen over an objective's examples, or time them on its device; each once.

    What can't be run, or fails, isn't known by that objective; why is said in a line.

    Args:
        up: the search.
        wanted: objectives with examples or a device of their own.
        model: whose failures are said; by default those of all that are stored.

    Raises:
        NothingMeasured: what all are held against failed on the device.
        UsageError: it is none of the study's candidates any more.
    """
    if not wanted:
        return
    able = [t for t in feasible(list(up.trials.all().values())) if not t.candidate.model.endswith(UNTRAINED)]
    mine = [trial for trial in able if model in (None, trial.candidate.model)]
    labels = {trial.candidate.label for trial in mine}
    for objective in wanted:
        if objective.device:  # all of them: the first launch's reference may be any
            failed = on_device.time_in(up, objective, able, screen=True).failed
        else:
            failed = _replayed(up, objective, mine)
        for label, why in failed.items():
            if label in labels:
                up.say(f"not known by {objective.name}: {label}: {why}")


def _replayed(up: Underway, objective: Objective, trials: Sequence[Trial]) -> dict[str, str]:
    """Run those that weren't run; why, by label, of each that could not be."""
    assert objective.data
    id = str(objective.data["id"])
    programs = {t.candidate.model: Program.load(up.folder / t.work / "program") for t in trials}
    kinds: dict[str, list[Trial]] = {}
    for trial in trials:
        program = programs[trial.candidate.model]
        if not replayed_file(up.folder, id, trial, program).exists():
            kinds.setdefault(taken(program), []).append(trial)
    failed: dict[str, str] = {}
    for some in kinds.values():
        try:
            given = examples_of(kept_examples(up.folder, id), [programs[some[0].candidate.model]])
            if given.id != id:
                raise UsageError(f"the objective {objective.name!r}", "its examples have changed", "add it anew")
            failed |= replay(up.folder, given, some, programs.__getitem__, up.say)[1]
        except UsageError as error:
            failed |= {trial.candidate.label: f"{error.found}; {error.todo}" for trial in some}
    return failed
