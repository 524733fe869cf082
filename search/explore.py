"""The search over many models: ask, evaluate, tell; then choose, time again, confirm and pack.

All that is found is stored as it comes; the same call goes on where an earlier one stopped, or beside one that runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.ids import content_id
from ..core.process import Limits
from ..devices.facts import host_facts
from ..devices.sitting import PROTOCOL
from ..devices.store import Store
from ..targets import require
from . import samplers, studyfile
from .candidate import Candidate
from .conclude import conclude
from .evaluate import ALONE, FINETUNED, GIVEN, INHERITED, PRECISION, Deployments, Evaluator
from .folder import alone, study_folder, sweep
from .goals import LOGARITHMIC, Goals
from .goals import UNTRAINED as KNOWN_UNTRAINED
from .judge import judge
from .kept import Kept
from .looks import LOOKS, Price, price
from .models.api import Models
from .objectives import SCATTER, Estimate, Objective
from .progress import Progress, text_of
from .ranks import Ranks
from .roster import REFUSED, TUNED, UNTRAINED, Tried
from .samplers import Sampler
from .samplers.base import Known
from .several import Several
from .space import Space, Values
from .study import Study
from .studyfile import OWN, Effort, StudyFile

Say = Callable[[str], None]
WAIT_S = 0.5
"""Between two looks whether another process has ended with a model."""


def explore(file: Path | str, *, output: Path | str, command: str = "", **options: Any) -> Study:
    """Search the models of a study file for each of its targets and devices; pack the chosen ones into `output`.

    Args:
        file: see `studyfile.read`.
        output: the study's folder.
        command: the command line, for the report.
        options: what `opened` takes, by name:
            `effort`: of `Effort`, what comes before the file's own.
            `objectives`: names that take the place of the file's; those that were added to the study may be among them.
            `subject_to`: constraints that take the place of the file's.
            `store`: where facts are kept, as a SQLAlchemy URL; by default a file in the folder.
            `overwrite`: begin anew, and replace what is there once the new study is whole.
            `tune`: train what is chosen of inherited weights further, though no model came since the last choice.
            `limits`: time and memory of each converter.
            `say`: takes one line about each step as it starts.

    Raises:
        NothingMeasured: no model could be made, proven and measured.
        CheckFailed: none keeps to the constraints; the nearest is named.
        UsageError: bad arguments, file or data.
        CannotDo: a missing part.
    """
    with opened(file, output=output, **options) as exploring:
        exploring.run()
        with alone(exploring.folder):
            sweep(exploring.folder)
            found = conclude(exploring, command)
    return Study(Path(output), found.document)


@contextmanager
def opened(
    file: Path | str,
    *,
    output: Path | str,
    effort: Mapping[str, Any] | None = None,
    objectives: Sequence[str] = (),
    subject_to: Sequence[str] = (),
    store: str | None = None,
    overwrite: bool = False,
    tune: bool = False,
    limits: Limits = Limits(),
    say: Say | None = None,
) -> Iterator[Exploring]:
    """What `explore` does before it searches, with the arguments that it names; the folder is held by the block.

    Nothing is trained or evaluated yet.
    """
    study = studyfile.read(file)
    chosen = {key: value for key, value in (effort or {}).items() if value is not None}
    asked = f"the study file {file}"
    try:
        wanted = replace(study.search, **chosen)
    except ValueError as error:
        raise UsageError(asked, str(error), "see `seatrial search --help`") from error
    if tune and (study.family is None or study.weights == OWN):
        raise UsageError(f"{asked}: --tune", "no model of it inherits weights", "leave it out")
    deployments = Deployments.read(study, wanted, asked)
    # What is wrong with the space or the sampler is said before anything is trained.
    samplers.make(Space.from_dict(study.space, study.forbidden, f"{asked}: space"), ("",), wanted.sampler)
    key = content_id(_deciding(study, wanted, deployments))
    folder = Path(output)
    goals = Goals.read(
        objectives or study.objectives,
        subject_to or study.constraints,
        study.path.resolve().parent,
        asked,
        {} if overwrite else _added(folder, key, store),
    )
    goals.check_files(asked)
    if not study.labelled:
        goals.check_unlabelled(asked)
    with (
        study_folder(folder, key, overwrite, joined=not overwrite) as place,
        Exploring(place, key, limits, say or (lambda _: None), store, study, wanted, goals, deployments) as exploring,
    ):
        exploring.tune = tune
        yield exploring


def _added(folder: Path, key: str, store: str | None) -> dict[str, Objective]:
    """The objectives that a study has by now; none where it is to be begun.

    With a store elsewhere those that were added to the folder since come along, see `Underway`.
    """
    own = folder / "facts.sqlite"
    found: dict[str, Objective] = {}
    places: list[Path | str] = [*([own] if own.exists() else []), *([store] if store else [])]
    for place in places:
        with closing(Store(place)) as facts:
            found |= Kept(facts, key).all()
    return found


def _deciding(study: StudyFile, effort: Effort, deployments: Deployments) -> list[Any]:
    """What would give other facts; objectives, constraints, the sampler and how much is searched are no part of it."""
    budgets = [budget.deciding for budget in (study.shared, study.budget, study.finetune)]
    versions = {name: require(name).version() for name in deployments.targets}
    data = [effort.examples, effort.calibration]
    deployed = deployments.deciding
    return [study.id, study.weights, budgets, *deployed, data, host_facts()["identity"], versions, PROTOCOL]


class Exploring(Several):
    """A search over many models, under way in this process and perhaps in others."""

    def __init__(
        self,
        folder: Path,
        key: str,
        limits: Limits,
        say: Say,
        store: str | None,
        study: StudyFile,
        effort: Effort,
        goals: Goals,
        deployments: Deployments,
    ) -> None:
        super().__init__(folder, key, limits, say, store, goals, deployments, effort.seed)
        self.study, self.effort = study, effort
        self.models = Models(study, self.work / "training", limits=limits, say=say)
        self.ranks = Ranks(self, self.models, study, effort.seed)
        self.trials.forget_failed(self.roster.forget_failed([str(bound) for bound in goals.bounds]))
        self.begun = time.monotonic()
        self.tune = False
        self._later: list[Tried] = []
        self._begun = False
        self._elsewhere: dict[str, Values] = {}
        self._price: Price | None = None
        self._seen: list[Tried] = []
        self.count = self._repeats = 0
        size = Space.from_dict(study.space, study.forbidden).size
        self.most = effort.evaluations if size is None else min(effort.evaluations, size)
        self.progress = Progress(goals, self.most, effort.minutes)

    def run(self) -> None:
        """Evaluate models until the effort is spent, the space is, or the constraints prove out of reach."""
        self.begin()
        self._take_in()
        self.progress.begin()
        while self.count < self.effort.evaluations and not self._late() and not self._idle():
            others = [model for model in self.roster.others() if not model.endswith(UNTRAINED)]
            # What others are at counts; should one of them end without it, it is ours to do.
            if self.count + len(others) >= self.effort.evaluations or not self._step():
                if not others:
                    break
                time.sleep(WAIT_S)
            self._take_in()
        left = self.roster.others().keys()
        while left & self.roster.others().keys():  # so that what they are at is there to be chosen
            time.sleep(WAIT_S)

    def begin(self) -> None:
        """Train what models share, unless that is done; have samplers."""
        way = self._way()
        self.evaluator = Evaluator(
            self, self.models, self.roster, self.deployments, self.effort, self.goals.bounds, way, self.judged
        )
        self.evaluator.mend()
        if self.judged:
            with alone(self.folder):  # some models may have come after they were added
                judge(self, self.judged)
        self._price = price(self.work, [], {}) if self._before else None  # an earlier run may have found it
        self.samplers = {place: self._sampler(place) for place in self.deployments.places}

    def _late(self) -> bool:
        minutes = self.effort.minutes
        return minutes is not None and time.monotonic() - self.begun > 60 * minutes

    def _idle(self) -> bool:
        """Whether as many candidates in a row as may be evaluated built models that are known: none is left, maybe."""
        idle = self._repeats >= self.effort.evaluations
        if idle:
            words = f"no new model among the last {self._repeats} candidates: the search ends with {self.count}"
            self.say(f"{words}; variables that change the training alone belong in `training`")
        return idle

    def _way(self) -> str:
        """Where weights come from; of a family after a look whether inherited ones rank as own ones do."""
        if self.study.pooled:
            return GIVEN
        if self.study.family is None or self.study.weights == OWN:
            return ALONE
        self.ranks.see()
        self.say(str(self.ranks.text))
        return INHERITED if self.ranks.trusted else FINETUNED

    @property
    def _before(self) -> set[str]:
        """Objectives that are known before a model is trained, where it is trained for itself."""
        trains = self.evaluator.way in (ALONE, FINETUNED)
        known = KNOWN_UNTRAINED if trains else set()
        return {name for name in self.goals.all if name in known}

    def _sampler(self, place: str) -> Sampler:
        """One for each target and device: its models in its precisions, by the objectives there."""
        precisions = [c.precision for c in self.deployments.of("") if c.place == place]
        space = Space.from_dict({**self.study.space, PRECISION: precisions}, self.study.forbidden)
        cheap = self._before if self._price and self._price.pays else set()
        return samplers.make(
            space,
            self.goals.names,
            self.effort.sampler,
            budget=self.effort.evaluations * len(precisions),
            bounds=self.goals.limits,
            cheap=cheap if cheap < set(self.goals.all) else set(),
            log=[name for name in self.goals.all if self.goals.measure(name) in LOGARITHMIC],
            seed=self.effort.seed,
        )

    def _step(self) -> bool:
        """Evaluate one more model, for each target and device in turn; False where no sampler has one."""
        places = list(self.samplers)
        for i in range(len(places)):
            place = places[(self.count + i) % len(places)]
            values = self._next(place)
            if values is None:
                continue
            self.say(f"model {self.count + 1} of {self.most}, for {place}: {text_of(values)}")
            found = self.evaluator.evaluate(values)
            self._repeats = self._repeats + 1 if found and found.values != values else 0
            self._told(found, values)
            return True
        return False

    def _next(self, place: str) -> Values | None:
        """What a place's sampler asks for, after a look at untrained ones where training is dear."""
        self._see_whether_looks_pay()
        sampler = self.samplers[place]
        self._keep_off()
        if sampler.cheap:
            for asked in sampler.propose(LOOKS):
                values = _of_model(asked)
                self.say(f"looking at a model before it is trained, for {place}: {text_of(values)}")
                self._told(self.evaluator.look(values), values)
            self._take_in()
        asked_for = sampler.ask()
        return None if asked_for is None else _of_model(asked_for)

    def _see_whether_looks_pay(self) -> None:
        """Where they do, samplers that use them take over; they know all that the others did."""
        if self._price is None and self._before:
            models = [one for one in self._seen if not one.model.endswith(UNTRAINED)]
            self._price = price(self.work, models, self.seconds())
            if self._price:
                self.say(self._price.text)
            if self._price and self._price.pays:
                self.samplers = {place: self._sampler(place) for place in self.samplers}
                self._tell(self._seen)

    def _keep_off(self) -> None:
        """Let samplers leave alone what other processes are at, and no longer what they have ended with."""
        others = self.roster.others()
        for model, values in {**self._elsewhere, **others}.items():
            if model in others:
                self._each(values, lambda sampler, values, candidate: sampler.take(values))
            else:
                self._each(values, lambda sampler, values, candidate: sampler.release(values))
        self._elsewhere = others

    def _told(self, found: Tried | None, values: Values) -> None:
        """What a sampler must know of what it asked for and `_take_in` doesn't tell."""
        if found is None:  # another process is at a model that builds the same graph
            self._each(values, lambda sampler, values, candidate: sampler.release(values))
            time.sleep(WAIT_S)
        elif found.values != values:
            self._tell([replace(found, values=dict(values))])

    def _take_in(self) -> None:
        """Tell the samplers what came since, from this process and from others.

        At the start, models that were only looked at since the last evaluation come after the next look: a run that
        was killed between the two then looks at the same ones again, and goes on as it would have.
        """
        new = [*self._later, *self.roster.fresh()]
        begun, self._begun = self._begun, True
        new = [one for one in new if not one.model.endswith(TUNED)]  # those are of a search that had chosen already
        trained = [i for i, one in enumerate(new) if not one.model.endswith(UNTRAINED)]
        cut = len(new) if begun else max(trained, default=-1) + 1
        new, self._later = new[:cut], new[cut:]
        self._seen += new
        gc.disable()  # of thousands of models half of the time went into looking through them all for circles
        try:
            self._tell(new)
        finally:
            gc.enable()
        for one in (new[i] for i in trained):
            if one.kind == REFUSED:
                self.say(f"not trained: {one.reason}: {text_of(one.values)}")
            else:
                self.count += 1
                self.say(self._line(one))

    def _each(self, values: Values, do: Callable[[Sampler, Values, Candidate], None], model: str = "") -> None:
        """For each deployment of a model, by the sampler of where it runs."""
        for candidate in self.deployments.of(model):
            do(self.samplers[candidate.place], {**values, PRECISION: candidate.precision}, candidate)

    def _tell(self, many: Sequence[Tried]) -> None:
        ids = [c.id for one in many for c in self.deployments.of(one.model)]
        found = self.values(self.trials.all(ids), {one.model: one for one in many})
        for one in many:
            self._each(one.values, partial(self._tell_one, one, found), one.model)

    def _tell_one(
        self, one: Tried, found: Mapping[str, Mapping[str, Estimate]], sampler: Sampler, values: Values, of: Candidate
    ) -> None:
        id, untrained = of.id, one.model.endswith(UNTRAINED)
        names = [n for n in sampler.names if n in sampler.cheap or not untrained]
        if id not in one.times or any(id not in found[name] for name in names):
            beyond = {"macs": one.macs, "parameters": one.parameters} if one.kind == REFUSED else {}
            known = {name: float(cost) for name, cost in beyond.items() if name in sampler.names and cost is not None}
            sampler.tell(values, known, failed=True)
            return
        costs = {name: self.goals.cost(name, found[name][id].value) for name in names}
        errors = {name: SCATTER * cost for name, cost in costs.items() if name == "latency_ms"}
        sampler.tell(values, costs, errors)

    def _line(self, one: Tried) -> str:
        """What became of a model, and how things stand."""
        known: list[tuple[Candidate, Known | None]] = []

        def add(sampler: Sampler, values: Values, of: Candidate) -> None:
            known.append((of, sampler.known.get(sampler.key(values))))

        self._each(one.values, add, one.model)
        return self.progress.line(one, known)


def _of_model(values: Values) -> Values:
    return {name: value for name, value in values.items() if name != PRECISION}
