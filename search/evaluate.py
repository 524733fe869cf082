"""One model of a study: its weights, its deployments made and proven, and their times in one launch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..core.errors import NothingMeasured, SeatrialError, UsageError
from ..devices.device_profile import DeviceProfile
from ..devices.facts import cpu_flags
from ..devices.launches import Launch
from ..devices.results import effects
from ..exporter.api import check_program, source_of
from ..exporter.sources import Source
from ..targets import require
from . import on_device, race
from .candidate import LOCAL, Candidate, candidates
from .choose import Bound
from .folder import write_once
from .judge import judge
from .making import Making, arm_of, making
from .models.api import Facts, Models, Result
from .models.tasks import own_failure
from .objectives import TESTS, Objective
from .roster import ASKED, REFUSED, TUNED, UNTRAINED, Roster, Tried
from .space import Values, values_id
from .studyfile import Effort, StudyFile
from .trials import AGAIN, Trial, feasible
from .underway import Underway

PRECISION = "precision"
"""The variable of a deployment, beside those of the model."""
TARGETS = ("onnxruntime", "openvino", "tflite")
UNRESTRICTED = DeviceProfile("this machine as it is")
GIVEN, INHERITED, FINETUNED, ALONE = "given", "inherited", "finetuned", "alone"
"""Where weights come from: a pool's model, the shared training, a short one from that, one of its own."""
SURELY = 0.9
"""Of what a graph has before it is converted, an artifact has at least this share: some converters fold a little."""
REFERENCE_FILE = "reference.json"
"""In the folder of the work: the trial that every launch holds."""
ALL_LOSS = 1.0
"""Accuracy is an objective here, not a check: int8 may lose what it likes."""


@dataclass(frozen=True)
class Deployments:
    """What every model is deployed as.

    Attributes:
        targets: names of targets.
        precisions: names of precisions, as far as a target has them on this CPU.
        threads: of each, where its device doesn't say.
        devices: by name, profiles that restrict this machine.
    """

    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: int
    devices: Mapping[str, DeviceProfile] = field(default_factory=lambda: {LOCAL: UNRESTRICTED})

    @classmethod
    def read(cls, study: StudyFile, effort: Effort, asked: str) -> Deployments:
        """What a study file wants.

        Raises:
            UsageError: a precision that none of its targets runs on this CPU, or no such device profile.
            CannotDo: a device has more cores than there are here.
        """
        targets = study.targets or TARGETS
        able = dict.fromkeys(p for target in targets for p in require(target).precisions(cpu_flags()))
        wanted = study.precisions or tuple(p for p in able if p != "fp16")
        for name in wanted:
            if name not in able:
                found = f"{name}: no target of it runs that on this CPU"
                raise UsageError(f"{asked}: precisions", found, f"here they can: {', '.join(able)}")
        if PRECISION in study.space:
            found = "a variable `precision`"
            raise UsageError(f"{asked}: space", found, "it is searched already: say precisions = [...]")
        return cls(tuple(targets), tuple(wanted), effort.threads, _devices(study, asked))

    @property
    def deciding(self) -> list[Any]:
        """What would give other deployments, as JSON data."""
        values: list[Any] = [{"targets": self.targets, "precisions": self.precisions, "threads": self.threads}]
        devices = {name: on_device.restricts(profile) for name, profile in self.devices.items()}
        return values if devices == {LOCAL: on_device.restricts(UNRESTRICTED)} else [*values, devices]

    @cached_property
    def places(self) -> list[str]:
        """Each target on each device; see `place_of`."""
        return list(dict.fromkeys(c.place for c in self._defaults))

    def of(self, model: str) -> list[Candidate]:
        """The defaults of each target, precision and device."""
        if model not in self._of:
            self._of[model] = [replace(c, model=model) for c in self._defaults]
        return self._of[model]

    @cached_property
    def _of(self) -> dict[str, list[Candidate]]:
        """Of thousands of models each is asked for several times, and so is the id of each."""
        return {}

    @cached_property
    def _defaults(self) -> list[Candidate]:
        found = [c for c in candidates(self.targets, self.precisions, [self.threads], cpu_flags()) if c.is_default]
        return [c.on(name, profile) for name, profile in self.devices.items() for c in found]

    def variants(self, chosen: Candidate) -> list[Candidate]:
        """It with every choice of settings and number of threads that its device leaves, each once."""
        profile = self.devices[chosen.device]
        counts = dict.fromkeys((self.threads, len(profile.core_set)))
        found = candidates([chosen.target], [chosen.precision], tuple(counts), cpu_flags())
        return list(dict.fromkeys(replace(c.on(chosen.device, profile), model=chosen.model) for c in found))


def _devices(study: StudyFile, asked: str) -> dict[str, DeviceProfile]:
    """The profiles that a study file names; the paths of its own start beside it."""
    found: dict[str, DeviceProfile] = {}
    beside = study.path.resolve().parent
    for text in study.devices or (LOCAL,):
        name, profile = LOCAL, UNRESTRICTED
        if text != LOCAL:
            told = on_device.described(str(beside / text) if text.endswith(".toml") else text)
            name, profile = told["name"], DeviceProfile("", **told["profile"])
        if name in found or (name == LOCAL and text != LOCAL):
            wrong = f"{name} is the machine as it is" if name == LOCAL else f"{name} twice"
            raise UsageError(f"{asked}: devices", wrong, "give each device a name of its own")
        found[name] = profile
    return found


class Evaluator:
    """Evaluates the models of a study.

    Args:
        underway: the search.
        models: of the study.
        roster: takes what became of each.
        deployments: of every model.
        effort: how much data.
        bounds: the constraints.
        way: where weights come from.
        judged: added objectives that new models are judged by, see `judge`.
    """

    def __init__(
        self,
        underway: Underway,
        models: Models,
        roster: Roster,
        deployments: Deployments,
        effort: Effort,
        bounds: Sequence[Bound],
        way: str,
        judged: Sequence[Objective] = (),
    ) -> None:
        self.underway, self.models, self.roster, self.bounds = underway, models, roster, bounds
        self.deployments, self.effort, self.way, self.judged = deployments, effort, way, judged

    def mend(self) -> None:
        """Try again the deployments that failed for want of time, memory or a part, of models that have others."""
        for model, failed in self.underway.trials.failed_again().items():
            one = self.roster.get(model)
            if one is None or one.status != "ok" or model.endswith(UNTRAINED):
                continue
            with self.roster.claimed(model, one.values) as mine:
                if mine:
                    self.underway.trials.forget([trial.id for trial in failed])
                    self._mended(one)

    def _mended(self, one: Tried) -> None:
        able = [trial for trial in feasible(self._made(one.model)) if trial.id not in one.times]
        times = self._timed(able)[0] if able else {}
        if times:
            self.roster.put(replace(one, times={**one.times, **times}))
            judge(self.underway, self.judged, one.model)

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
            found = self.roster.get(model)  # another process may have done it meanwhile
            if found is None:
                found = Tried(model, dict(values), "failed", facts.error, facts.kind)
                if facts.key is not None:
                    found = replace(do(values, facts, model), macs=facts.macs, parameters=facts.parameters)
                self.roster.add(found)
            return found

    def _looked(self, values: Values, facts: Facts, model: str) -> Tried:
        result = self.models.untrained([values])[0]
        return self._deployed(values, result, Tried(model, dict(values), "ok"))

    def _evaluated(self, values: Values, facts: Facts, model: str) -> Tried:
        refused = self._refused(facts)
        if refused:
            return Tried(model, dict(values), "failed", refused, REFUSED)
        result = self._result(values)
        known = Tried(model, dict(values), "ok", trained=self.way)
        if result:
            known = replace(known, accuracy=result.accuracy, seconds=result.seconds or 0.0)
        earlier = self.roster.get(f"{facts.key}{UNTRAINED}")
        # Times don't depend on weights: those of the untrained one stand, deployment by deployment.
        times = _renamed(earlier, self.deployments, model) if earlier else None
        return self._deployed(values, result, known, times)

    def _refused(self, facts: Facts) -> str | None:
        """Why a model need not be trained: by its graph it is beyond a bound, on whatever runtime."""
        for bound in self.bounds:
            least = {"macs": facts.macs, "parameters": facts.weights}.get(bound.name)
            if least is not None and not TESTS[bound.sign](SURELY * least, bound.limit):
                return f"it has {least:,} {bound.name}, {ASKED}{bound}"
        return None

    def _tuned(self, values: Values, facts: Facts, model: str) -> Tried:
        with self.underway.timed("train"):
            result = self.models.finetune(values)
        known = Tried(model, dict(values), "ok", trained=FINETUNED, accuracy=result.accuracy)
        earlier = self.roster.all()[str(facts.key)]
        known = replace(known, seconds=result.seconds or 0.0)
        return self._deployed(values, result, known, _renamed(earlier, self.deployments, model))

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
        times: Mapping[str, float] | None = None,
    ) -> Tried:
        if result and result.status != "ok":
            return replace(known, status="failed", reason=result.reason, kind=result.kind)
        try:
            source = source_of(self.models.source(values, result))
            made = self._made(known.model, partial(self._capture, source, values))
        except SeatrialError as error:
            # A pool's model that is no model is wrong for itself alone.
            if not own_failure(error) and not (self.way == GIVEN and isinstance(error, UsageError)):
                raise
            return replace(known, status="failed", reason=error.one_line, kind=getattr(error, "kind", "error"))
        able = feasible(made)
        if not able:
            return _failed(known, "no deployment is feasible", {t.kind or "error": str(t.reason) for t in made})
        if times is None:
            times, failed = self._timed(able)
            if not times:
                return _failed(known, "no deployment could be timed", failed)
        if not known.model.endswith(UNTRAINED):
            judge(self.underway, self.judged, known.model)
        return replace(known, times={t.id: times[t.id] for t in able if t.id in times})

    def _made(self, model: str, capture: Callable[[Making], None] = Making.load) -> list[Trial]:
        """The model's trials, stored as they come; of one that was captured before unless `capture` does."""
        up, space = self.underway, self.deployments.of(model)
        trials = up.trials.all([c.id for c in space])
        if len(trials) == len(space):
            return list(trials.values())
        with making(up.folder, model, ALL_LOSS, up.limits, up.say, up.timed) as made:
            capture(made)
            for trial in made.prove_all([c for c in space if c.id not in trials]):
                up.trials.add(trial)
        return list(up.trials.all([c.id for c in space]).values())

    def _capture(self, source: Source, values: Values, made: Making) -> None:
        made.capture(source, self.deployments.targets, self.data(values))
        if self.way == GIVEN:
            made.program = self.models.declare(made.program)
        check_program(made.program)
        made.ready()

    def data(self, values: Values) -> dict[str, Path]:
        """What deployments are calibrated, judged and confirmed on; any candidate's values will do."""
        if self.way == GIVEN and not self.models.study.labelled:
            return {}
        effort = self.effort
        parts = {"train": effort.calibration, "valid": effort.examples, "test": effort.examples}
        found = self.models.data(values, parts)
        return {"calibration": found["train"], "evaluate": found["valid"], "confirm": found["test"]}

    def _timed(self, able: Sequence[Trial]) -> tuple[dict[str, float], dict[str, str]]:
        """Median ms of each, against the study's reference, and why those failed that are left out, by kind."""
        up = self.underway
        launch = up.trials.together("race", {race.REFERENCE, *(t.id for t in able)})  # before a kill
        launch = launch or self._launched(able)
        found = {t.id: effects([launch], race.REFERENCE, t.id, "median") for t in able}
        base = up.trials.first_ms("race", race.REFERENCE)
        failed = {run.status: f"{name}: {run.reason}" for name, run in launch.arms.items() if not run.ok}
        return {id: base * math.exp(times[0]) for id, times in found.items() if times and base}, failed

    def _launched(self, able: Sequence[Trial]) -> Launch:
        up = self.underway
        up.say(f"timing {len(able)} deployments of {able[0].candidate.model}")
        with up.sitting("race", self.effort.seed) as sitting:
            trial = self._reference(able)
            arms = [arm_of(up.folder, trial, race.REFERENCE), *(arm_of(up.folder, each) for each in able)]
            try:
                up.launch(sitting, arms, race.SCREEN_ROUNDS, trial)
            except NothingMeasured:
                if up.trials.first_ms("race", race.REFERENCE) is not None:
                    raise
                self._reference_file.unlink()  # it never ran: another model is to be the reference
        return sitting.launches[-1]

    def _reference(self, able: Sequence[Trial]) -> Trial:
        """What every launch holds; the first to time anything chooses it for all.

        It is written down before it is timed: a kill between the two leaves no launches of two references.
        """
        text = write_once(self._reference_file, json.dumps({"trial": self.underway.reference(able).id}))
        id = json.loads(text)["trial"]
        return self.underway.trials.all([id])[id]

    @property
    def _reference_file(self) -> Path:
        return self.underway.work / REFERENCE_FILE


def _failed(known: Tried, what: str, reasons: Mapping[str, str]) -> Tried:
    """A failed model; of its deployments' failures the kind that another run may not have, where there is one."""
    kind = min(reasons, key=lambda each: each not in AGAIN)
    return replace(known, status="failed", reason=f"{what}: {'; '.join(dict.fromkeys(reasons.values()))}", kind=kind)


def _renamed(earlier: Tried, deployments: Deployments, model: str) -> dict[str, float]:
    """Times of an untrained model's deployments under the ids of the trained one's."""
    pairs = zip(deployments.of(earlier.model), deployments.of(model), strict=True)
    ids = {old.id: new.id for old, new in pairs}
    return {ids[id]: ms for id, ms in earlier.times.items() if id in ids}
