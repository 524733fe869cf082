"""The objectives of a study, built-in and added, as estimates of each candidate: computed once, then read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..devices.launches import ArmRun, Launch
from ..devices.store import Store
from ..exporter.decision import Rule
from ..exporter.decision.decide import rows_of, rule_of, scores
from ..exporter.decision.rule import kind_of, softmax
from ..exporter.inspect import inspect
from ..exporter.program import Program
from . import on_device
from .kept import Kept
from .objectives import BUILT_IN, MEASURES, Estimate, Objective, costs, mean, measured, share, timed
from .replay import function_values, replayed_file
from .roster import earlier
from .trials import Trial, Trials, work_of

if TYPE_CHECKING:
    from numpy import ndarray

_FILES = "inspect"
"""Under this id the scores hold what a model's file tells, by artifact."""


class Views:
    """What is stored of a study's candidates, seen as objectives.

    Args:
        folder: the study's.
        document: what its ``study.json`` holds.
        store: where its facts are; by default a file in its folder. One that is given stays open.
        trials: all that are looked at, where they are known already.
    """

    def __init__(
        self,
        folder: Path,
        document: Mapping[str, Any],
        store: Store | None = None,
        trials: Mapping[str, Trial] | None = None,
    ) -> None:
        self.folder, self.document, self._given = folder, document, store
        if trials is not None:
            self.trials = dict(trials)
        self._found: dict[str, dict[str, Estimate]] = {}
        self._programs: dict[str, Program] = {}

    @property
    def _stored(self) -> bool:
        return self._given is not None or (self.folder / "facts.sqlite").exists()

    @cached_property
    def _store(self) -> Store:
        if self._given is not None:
            return self._given
        if not self._stored:
            raise UsageError(f"the study {self.folder}", "its facts.sqlite is gone", "run the search again")
        return Store(self.folder / "facts.sqlite")

    @cached_property
    def program(self) -> Program:
        """The source; where there are several, one of them: all have the same data and classes."""
        models = dict.fromkeys(row.get("model", "") for row in self.document["candidates"] if row["status"] == "ok")
        return self.program_of(next(iter(models), ""))

    def program_of(self, model: str) -> Program:
        """The source of a model.

        Raises:
            UsageError: its files are gone.
        """
        if model not in self._programs:
            place = f"{work_of(model)}/program"
            if not (self.folder / place).exists():
                raise UsageError(f"the study {self.folder}", f"its {place} is gone", "run the search again")
            self._programs[model] = Program.load(self.folder / place)
        return self._programs[model]

    @cached_property
    def kept(self) -> Kept:
        """The objectives that were added."""
        return Kept(self._store, self.document["key"])

    @cached_property
    def trials(self) -> dict[str, Trial]:
        """All trials by candidate id."""
        return Trials(self._store, self.document["key"]).all()

    @cached_property
    def added(self) -> dict[str, Objective]:
        """The objectives that were added, by name."""
        return self.kept.all() if self._stored and "key" in self.document else {}

    def direction(self, name: str) -> str:
        """``max`` or ``min``.

        Raises:
            UsageError: no such objective.
        """
        if name in BUILT_IN:  # without a look at the store, which may lie where nothing can be written
            return BUILT_IN[name].direction
        if name not in self.added:
            known = ", ".join([*BUILT_IN, *self.added])
            raise UsageError(f"objective {name!r}", "no such objective", f"known: {known}")
        return self.added[name].direction

    def standings(self) -> list[tuple[Objective, dict[str, Any] | None, Estimate | None]]:
        """Each added objective with the feasible candidate that is best by it; None where nobody is."""
        found = []
        for name, objective in self.added.items():
            estimates = self.estimates(name)
            able = [c for c in self.document["candidates"] if c["id"] in estimates and c["status"] == "ok"]
            sign = -1 if objective.direction == "max" else 1
            best = min(able, key=lambda c: sign * estimates[c["id"]].value, default=None)
            found.append((objective, best, estimates[best["id"]] if best else None))
        return found

    def estimates(self, name: str) -> dict[str, Estimate]:
        """By candidate id; those of which it is not known are left out."""
        if name not in self._found:
            if name in BUILT_IN:
                rows = {c["id"]: self._row(c, name) for c in self.document["candidates"]}
                found = {id: estimate for id, estimate in rows.items() if estimate}
                self._found[name] = found or self._derived(name)
            else:
                self._found[name] = self.scored(self.added[name])
        return self._found[name]

    def _row(self, row: Mapping[str, Any], name: str) -> Estimate | None:
        value = row["settings"].get("threads") if name == "threads" else row.get(name)
        if value is None:
            return None
        if name == "latency_ms":
            return timed(value, row.get("latency_low_ms"), row.get("latency_high_ms"), row.get("launches") or 0)
        evaluated = (self.document.get("data") or {}).get("evaluate")
        if name == "accuracy" and evaluated:
            return share(round(value * evaluated["n"]), evaluated["n"])
        return Estimate(float(value))

    def _derived(self, name: str) -> dict[str, Estimate]:
        """What the document has no column for."""
        if not self._stored or not self.document.get("key"):
            return {}
        if name == "throughput_per_s":
            return self._throughput()
        if name in on_device.OF_RUN:
            return self._launched(name)
        if name in ("macs", "parameters"):
            return self._inspected(name)
        if name in MEASURES and self.program.classes and self.labels() is not None:
            return self.scored(Objective(name, name, MEASURES[name][1]))
        return {}

    def _throughput(self) -> dict[str, Estimate]:
        size = self.program.inputs[0].shape[0] if self.program.inputs[0].shape else 1
        scale = 1e3 * (size if isinstance(size, int) else 1)
        found = {}
        for id, x in self.estimates("latency_ms").items():
            low, high = (None if end is None else scale / end for end in (x.high, x.low))
            found[id] = timed(scale / x.value, low, high, x.n or 0)
        return found

    def _launched(self, name: str) -> dict[str, Estimate]:
        """Of the launches: those of the confirmation, where a candidate took part in it.

        A model that was timed before it was trained, or trained further, has what it had then.
        """
        runs: dict[str, list[ArmRun]] = {}
        trials = Trials(self._store, self.document["key"])
        before = {id: earlier(trial.candidate) for id, trial in self.trials.items()}
        for stage in ("race", "confirm"):
            seen: dict[str, list[ArmRun]] = {}
            for run in trials.runs(stage, list(dict.fromkeys([*self.trials, *itertools.chain(*before.values())]))):
                if run.ok:
                    seen.setdefault(run.name, []).append(run)
            runs |= seen
        known = on_device.medians(name, itertools.chain(*runs.values()))
        found = {id: next((known[each] for each in (id, *ids) if each in known), None) for id, ids in before.items()}
        return {id: estimate for id, estimate in found.items() if estimate}

    def _inspected(self, name: str) -> dict[str, Estimate]:
        known = self.kept.scores(_FILES)
        for trial in self.trials.values():
            if trial.artifact and str(trial.artifact_id) not in known:
                facts = inspect(self.folder / trial.artifact)
                counted = facts["macs"] is not None and not facts["macs_not_counted"]
                known[str(trial.artifact_id)] = {
                    "macs": facts["macs"] if counted else None,
                    "parameters": facts["parameters"]["count"] if facts["parameters"] else None,
                }
                self.kept.score(_FILES, {str(trial.artifact_id): known[str(trial.artifact_id)]})
        values = {id: known.get(str(trial.artifact_id), {}).get(name) for id, trial in self.trials.items()}
        return {id: Estimate(float(value)) for id, value in values.items() if value is not None}

    def labels(self, group: str = "evaluate") -> ndarray | None:
        """Of a group of the study's own data."""
        import numpy as np

        found = self.program.data.get(group, {}).get("labels")
        return np.array(found) if found else None

    def scored(self, objective: Objective) -> dict[str, Estimate]:
        """An objective of answers, of each candidate that gave any; those that are known are read."""
        if objective.device:
            launches = self.launches_on(objective)
            return self._on(objective, on_device.estimates(objective, self.trials, launches))
        if objective.measure == "latency_ms":
            return self._on(objective, self.estimates("latency_ms"))
        known = self.kept.scores(objective.id)
        todo = {id: trial for id, trial in self.trials.items() if id not in known and self._answered(objective, trial)}
        if todo:
            found = {id: x.to_dict() for id, x in self._scored(objective, todo).items()}
            self.kept.score(objective.id, found)
            known |= found
        return self._on(objective, {id: Estimate.from_dict(data) for id, data in known.items()})

    def launches_on(self, objective: Objective) -> list[Launch]:
        """The launches on an objective's device."""
        return Trials(self._store, self.document["key"]).launches(on_device.stage_of(objective))

    def _on(self, objective: Objective, found: dict[str, Estimate]) -> dict[str, Estimate]:
        """Those on the runtimes that the objective is asked of."""
        asked, mine = objective.targets, {id: x for id, x in found.items() if id in self.trials}
        return {id: x for id, x in mine.items() if asked is None or self.trials[id].candidate.target in asked}

    def _answered(self, objective: Objective, trial: Trial) -> bool:
        if objective.data:
            if trial.artifact is None:
                return False
            program = self.program_of(trial.candidate.model)
            return replayed_file(self.folder, objective.data["id"], trial, program).exists()
        return trial.outputs is not None

    def _scored(self, objective: Objective, trials: Mapping[str, Trial]) -> dict[str, Estimate]:
        answers = {id: self.answers(objective, trial) for id, trial in trials.items()}
        if objective.function:
            return function_values(self.folder / "work", objective.function, answers)
        found = {}
        for id, (given, labels) in answers.items():
            if objective.matrix:
                found[id] = mean(costs(self.rule(objective, trials[id]), given, labels))
            else:
                ready = objective.measure == "calibration_error" and kind_of(given) == "logits"
                given = softmax(given) if ready else given
                found[id] = measured(objective.measure, given, labels)
        return found

    def rule(self, objective: Objective, trial: Trial) -> Rule:
        """The decision rule of a candidate under an objective's cost matrix."""
        assert objective.matrix
        program = self.program_of(trial.candidate.model)
        return rule_of(program, self.folder / str(trial.outputs), objective.matrix)

    def answers(self, objective: Objective, trial: Trial, group: str = "evaluate") -> tuple[ndarray, ndarray]:
        """Scores (n, classes) and labels (n,) that an objective looks at."""
        import numpy as np

        program = self.program_of(trial.candidate.model)
        if objective.data:
            labels: ndarray | None = np.array(objective.data["labels"])
            file = replayed_file(self.folder, objective.data["id"], trial, program)
            given = rows_of(program, file, 0, len(objective.data["labels"]))
        else:
            labels = self.labels(group)
            given = scores(program, self.folder / str(trial.outputs), group)
        if labels is None:
            found = "the study has no labelled data"
            raise UsageError(f"the objective {objective.name!r}", found, "add --data, or search with --evaluate")
        if objective.slice and group == "evaluate":
            given, labels = given[objective.slice["indices"]], labels[objective.slice["indices"]]
        return given, labels

    def paired(self, objective: Objective, a: str, b: str) -> Estimate | None:
        """How much more `a` has than `b`, over the same examples; None where it is no mean over examples."""
        values = [self.each(objective, self.trials[id]) for id in (a, b)]
        return None if values[0] is None or values[1] is None else mean(values[0] - values[1])

    def each(self, objective: Objective, trial: Trial) -> ndarray | None:
        """One value for each example (n,), whose mean is the objective; None where it is no such mean."""
        if objective.measure not in ("accuracy", "expected_cost"):
            return None
        given, labels = self.answers(objective, trial)
        if objective.matrix:
            return costs(self.rule(objective, trial), given, labels)
        right: ndarray = (given.argmax(-1) == labels).astype(float)
        return right

    def close(self) -> None:
        """Give the store's connections back."""
        if "_store" in self.__dict__ and self._given is None:
            self._store.close()
