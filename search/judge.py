"""Objectives that were added to a study, of models that came after them: what they need is run by the search itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..core.errors import UsageError
from ..exporter.program import Program
from . import on_device
from .again import examples_of
from .objectives import Objective
from .replay import kept_examples, replay
from .trials import Trial, feasible
from .underway import Underway


def judge(up: Underway, wanted: Iterable[Objective], model: str | None = None) -> None:
    """Run the artifacts that may be chosen over an objective's examples, or time them on its device; each once.

    What can't be run, or fails, isn't known by that objective; why is said in a line.

    Args:
        up: the search.
        wanted: objectives that need something run; others are left alone.
        model: only its artifacts; by default all that are stored.

    Raises:
        UsageError: the examples that the study kept are gone, or changed.
        NothingMeasured: what all are held against failed on the device.
    """
    some = [objective for objective in wanted if objective.data or objective.device]
    if not some:
        return
    able = feasible(list(up.trials.all().values()))
    mine = [trial for trial in able if model in (None, trial.candidate.model)]
    for objective in some:
        failed = _replayed(up, objective, mine) if objective.data else {}
        if objective.device:
            # All of them: the first launch's reference may be any.
            failed = on_device.time_in(up, objective, able, screen=True).failed
        labels = {trial.candidate.label for trial in mine}
        for label, why in failed.items():
            if label in labels:
                up.say(f"not known by {objective.name}: {label}: {why}")


def _replayed(up: Underway, objective: Objective, trials: Sequence[Trial]) -> dict[str, str]:
    assert objective.data
    programs = {t.candidate.model: Program.load(up.folder / t.work / "program") for t in trials}
    path = kept_examples(up.folder, objective.data["id"])
    failed: dict[str, str] = {}
    for model, program in programs.items():
        own = [trial for trial in trials if trial.candidate.model == model]
        try:
            given = examples_of(path, [program])
        except UsageError as error:
            failed |= {trial.candidate.label: f"{error.found}; {error.todo}" for trial in own}
            continue
        if given.id != objective.data["id"]:
            raise UsageError(f"the objective {objective.name!r}", f"{path} has changed", "add it again by another name")
        failed |= replay(up.folder, given, own, programs.__getitem__, up.say)[1]
    return failed
