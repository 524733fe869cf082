"""One model of a study: its weights, its deployments made and proven, and their times in one launch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import SeatrialError
from ..core.paths import whole_file
from ..devices.arms import Arm
from ..devices.facts import cpu_flags
from ..devices.results import effects
from ..exporter.api import check_program, source_of
from . import race
from .candidate import Candidate, candidates
from .making import arm_of, making
from .models.api import Facts, Models, Result
from .models.tasks import own_failure
from .roster import Roster, Tried
from .space import Values, values_id
from .studyfile import Effort
from .trials import Trial, feasible, work_of
from .underway import Underway

UNTRAINED = "-untrained"
"""Behind a model's key: the same graph before training, for its times."""
TUNED = "-tuned"
"""Behind a model's key: what it inherited, trained a little further."""
GIVEN, INHERITED, FINETUNED, ALONE = "given", "inherited", "finetuned", "alone"
"""Where weights come from: a pool's model, the shared training, a short one from that, one of its own."""
ALL_LOSS = 1.0
"""Accuracy is an objective here, not a check: int8 may lose what it likes."""


@dataclass(frozen=True)
class Deployments:
    """What every model is deployed as.

    Attributes:
        targets: names of targets.
        precisions: names of precisions, as far as a target has them on this CPU.
        threads: of each.
    """

    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int

    def of(self, model: str) -> list[Candidate]:
        """The defaults of each target and precision."""
        found = candidates(self.targets, self.precisions, [self.threads], cpu_flags())
        return [replace(c, model=model) for c in found if c.is_default]


class Evaluator:
    """Evaluates the models of a study.

    Args:
        underway: the search.
        models: of the study.
        roster: takes what became of each.
        deployments: of every model.
        effort: how much data.
        way: where weights come from.
    """

    def __init__(
        self, underway: Underway, models: Models, roster: Roster, deployments: Deployments, effort: Effort, way: str
    ) -> None:
        self.underway, self.models, self.roster = underway, models, roster
        self.deployments, self.effort, self.way = deployments, effort, way

    def look(self, values: Values) -> Tried | None:
        """Time a model before it is trained; None where another process does."""
        return self._claimed(values, UNTRAINED, self._looked)

    def evaluate(self, values: Values) -> Tried | None:
        """Weights, deployments, times; None where another process does it. A failure comes back as data."""
        return self._claimed(values, "", self._evaluated)

    def tune(self, values: Values) -> Tried | None:
        """Train what a model inherited a little further, as one more model; None where another process does."""
        return self._claimed(values, TUNED, self._tuned)

    def _claimed(self, values: Values, suffix: str, do: Any) -> Tried | None:
        facts = self.models.facts([values])[0]
        model = (facts.key or values_id(values)) + suffix
        with self.roster.claimed(model, dict(values)) as mine:
            if not mine:
                return None
            found = self.roster.all().get(model)  # another process may have done it meanwhile
            if found is None:
                found = Tried(model, dict(values), "failed", facts.error, "error")
                if facts.key is not None:
                    found = replace(do(values, facts, model), macs=facts.macs, parameters=facts.parameters)
                self.roster.add(found)
            return found

    def _looked(self, values: Values, facts: Facts, model: str) -> Tried:
        result = self.models.untrained([values])[0]
        return self._deployed(values, result, Tried(model, dict(values), "ok"), f"work/untrained/{facts.key}")

    def _evaluated(self, values: Values, facts: Facts, model: str) -> Tried:
        result = self._result(values)
        known = Tried(model, dict(values), "ok", trained=self.way)
        if result:
            known = replace(known, accuracy=result.accuracy, seconds=result.seconds or 0.0)
        earlier = self.roster.all().get(f"{facts.key}{UNTRAINED}")
        # Times don't depend on weights: those of the untrained one stand, deployment by deployment.
        times = _renamed(earlier, self.deployments, model) if earlier else None
        return self._deployed(values, result, known, work_of(model), times)

    def _tuned(self, values: Values, facts: Facts, model: str) -> Tried:
        with self.underway.timed("train"):
            result = self.models.finetune(values)
        known = Tried(model, dict(values), "ok", trained=FINETUNED, accuracy=result.accuracy)
        earlier = self.roster.all()[str(facts.key)]
        known = replace(known, seconds=result.seconds or 0.0)
        return self._deployed(values, result, known, work_of(model), _renamed(earlier, self.deployments, model))

    def _result(self, values: Values) -> Result | None:
        if self.way == GIVEN:
            return None
        with self.underway.timed("train"):
            if self.way == INHERITED:
                return self.models.inherit([values])[0]
            return self.models.finetune(values) if self.way == FINETUNED else self.models.train(values)

    def _deployed(
        self,
        values: Values,
        result: Result | None,
        known: Tried,
        work: str,
        times: Mapping[str, float] | None = None,
    ) -> Tried:
        if result and result.status != "ok":
            return replace(known, status="failed", reason=result.reason, kind=result.kind)
        try:
            source = source_of(self.models.source(values, result))
            made = self._made(values, source, known.model, work)
        except SeatrialError as error:
            if not own_failure(error):
                raise
            return replace(known, status="failed", reason=error.one_line, kind=getattr(error, "kind", "error"))
        able = feasible(made)
        if not able:
            reasons = "; ".join(dict.fromkeys(str(t.reason) for t in made))
            return replace(known, status="failed", reason=f"no deployment is feasible: {reasons}", kind="error")
        if times is None:
            times = self._timed(able, work)
        return replace(known, times={t.id: times[t.id] for t in able if t.id in times})

    def _made(self, values: Values, source: Any, model: str, work: str) -> list[Trial]:
        """The model's trials, stored as they come."""
        up, space = self.underway, self.deployments.of(model)
        trials = up.trials.all([c.id for c in space])
        if len(trials) == len(space):
            return list(trials.values())
        where = up.folder / work
        with making(up.folder, model, ALL_LOSS, up.limits, up.say, up.timed, where) as made:
            check_program(made.capture(source, self.deployments.targets, self.data(values)))
            made.ready()
            for trial in made.prove_all([c for c in space if c.id not in trials]):
                up.trials.add(trial)
        return list(up.trials.all([c.id for c in space]).values())

    def data(self, values: Values) -> dict[str, Path]:
        """What deployments are calibrated, judged and confirmed on; any candidate's values will do."""
        if self.way == GIVEN and not self.models.has_data:
            return {}
        effort = self.effort
        parts = {"calibration": "train", "evaluate": "valid", "confirm": "test"}
        most = {"calibration": effort.calibration}
        return {use: self.models.data(part, values, most.get(use, effort.examples)) for use, part in parts.items()}

    def _timed(self, able: Sequence[Trial], work: str) -> dict[str, float]:
        """Median ms of each, against the study's reference; those that failed are left out."""
        up = self.underway
        up.say(f"timing {len(able)} deployments of {able[0].candidate.model}")
        with up.sitting("race", self.effort.seed) as sitting:
            reference, base = self._reference(able, work)
            arms = [reference, *(arm_of(up.folder, trial, work=work) for trial in able)]
            launch = up.launch(sitting, arms, race.SCREEN_ROUNDS, able[0])
            if base is None:
                base = statistics.median(x for block in launch.arms[race.REFERENCE].blocks for x in block) / 1e6
                self._keep_reference(able, work, base)
        found = {t.id: effects([launch], race.REFERENCE, t.id, "median") for t in able}
        return {id: base * math.exp(times[0]) for id, times in found.items() if times}

    def _reference(self, able: Sequence[Trial], work: str) -> tuple[Arm, float | None]:
        """The arm that every launch holds, and its median ms in the first of them, where there was one."""
        up = self.underway
        if self._reference_file.exists():
            held = json.loads(self._reference_file.read_text())
            trial = up.trials.all([held["trial"]])[held["trial"]]
            return arm_of(up.folder, trial, race.REFERENCE, held["work"]), held["ms"]
        return arm_of(up.folder, up.reference(able), race.REFERENCE, work), None

    def _keep_reference(self, able: Sequence[Trial], work: str, ms: float) -> None:
        held = {"trial": self.underway.reference(able).id, "work": work, "ms": ms}
        with whole_file(self._reference_file) as part:
            part.write_text(json.dumps(held))

    @property
    def _reference_file(self) -> Path:
        return self.underway.work / "reference.json"


def _renamed(earlier: Tried, deployments: Deployments, model: str) -> dict[str, float]:
    """Times of an untrained model's deployments under the ids of the trained one's."""
    ids = {replace(c, model=earlier.model).id: c.id for c in deployments.of(model)}
    return {ids[id]: ms for id, ms in earlier.times.items() if id in ids}
