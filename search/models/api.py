"""A study's candidates as models, for the search's loop: everything is made in children and kept as files.

Each method gives what is in the work folder, and makes what isn't: the same calls go on where a killed run stopped.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...core import process
from ...core.errors import ChildFailed, SeatrialError, UsageError, from_dict
from ...core.ids import content_id
from ...core.paths import whole_file
from ...core.process import Limits
from ...devices import lease
from ...exporter.images import Preprocess
from ...exporter.program import Program
from ...exporter.sources import detect
from ..studyfile import SOURCE, Budget, StudyFile
from . import elastic
from .fidelity import Fidelity, fidelity
from .tasks import RESULT, own_failure

Values = Mapping[str, Any]
Say = Callable[[str], None]
_TASKS = "seatrial.search.models.tasks"
_PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait let others run: torch's own way is to spin, and on busy cores a step of 0.4 s then took 12."""


@dataclass(frozen=True)
class Facts:
    """What is known of a candidate before anything is trained or timed.

    Attributes:
        key: equal for candidates that build the same graph and are trained alike; None where it can't be built.
        macs: multiplications with an addition, of convolutions and matrix products; None for a model of a pool.
        parameters: how many; None for a model of a pool.
        weights: how many of them no converter folds into others: matrices and kernels; None for a model of a pool.
        error: why it can't be built.
        kind: of that failure: ``error``, ``timeout``, ``oom``, ``signal``.
    """

    key: str | None
    macs: int | None = None
    parameters: int | None = None
    weights: int | None = None
    error: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class Result:
    """A candidate with weights, or why it has none.

    Attributes:
        values: the candidate's.
        key: see `Facts`.
        status: ``ok`` or ``failed``.
        folder: ``model.py`` with code and weights; ``valid.npz`` with `scores` (n, classes) and `labels` (n,).
        reason: why it failed.
        kind: of the failure: ``error``, ``timeout``, ``oom``, ``signal``, ``diverged``.
        accuracy: top-1 on "valid".
        n: examples of "valid".
        seconds: of training.
        epochs: of training; 0 for inherited weights.
        loss: mean training loss of each epoch.
        tested: top-1 on "test", after `Models.confirm`.
    """

    values: dict[str, Any]
    key: str
    status: str
    folder: Path
    reason: str | None = None
    kind: str | None = None
    accuracy: float | None = None
    n: int | None = None
    seconds: float | None = None
    epochs: int | None = None
    loss: tuple[float, ...] = ()
    tested: float | None = None

    @property
    def source(self) -> Path:
        """What the exporter captures."""
        return self.folder / "model.py"


class Models:
    """The models of one study.

    Args:
        study: what `studyfile.read` gave.
        workdir: takes everything; below it lies a folder for each state of the study's code.
        limits: of whatever isn't a training.
        say: takes one line about each step as it starts.
    """

    def __init__(self, study: StudyFile, workdir: Path, *, limits: Limits = Limits(), say: Say | None = None) -> None:
        self.study, self.limits = study, limits
        self.folder = Path(workdir).resolve() / study.id
        self.say = say or (lambda text: None)
        self._known: dict[str, Facts] = {}

    def facts(self, many: Sequence[Values]) -> list[Facts]:
        """Facts of candidates, those that aren't known yet by one process."""
        if self.study.pooled:
            return [self._pooled(values) for values in many]
        wanted = {content_id(dict(values)): dict(values) for values in many}
        todo = {id: values for id, values in wanted.items() if id not in self._known}
        places = {id: self.folder / "facts" / f"{id}.json" for id in todo}
        failed = self._batch("facts", [(todo[id], places[id]) for id in todo], {}, self.limits, "building candidates")
        for id, values in todo.items():
            if error := failed.get(places[id]):
                self._known[id] = Facts(None, error=error.one_line, kind=getattr(error, "kind", "error"))
            else:
                found = json.loads(places[id].read_text())
                others = [[name, values.get(name)] for name in self.study.training]
                key = content_id([found["key"], others]) if others else found["key"]
                self._known[id] = Facts(key, found["macs"], found["parameters"], found["weights"])
        return [self._known[content_id(dict(values))] for values in many]

    def key(self, values: Values) -> str:
        """The canonical key of a candidate.

        Raises:
            ChildFailed: it can't be built.
        """
        found = self.facts([values])[0]
        if found.key is None:
            raise ChildFailed(f"the candidate {dict(values)}", found.error or "", "change its values")
        return found.key

    def untrained(self, many: Sequence[Values]) -> list[Result]:
        """Sources with weights as before training, to time; latency doesn't depend on the weights."""
        return self._made("untrained", many, "untrained", {}, self.limits, "writing untrained candidates")

    def source(self, values: Values, result: Result | None = None) -> str:
        """What the exporter takes as the model: a result's file, a pool's model, else the untrained candidate.

        Raises:
            ChildFailed: the candidate can't be built.
        """
        if self.study.pooled:
            return self.study.pooled_model(str(values[SOURCE]))
        found = result or self.untrained([values])[0]
        if found.status != "ok":
            raise ChildFailed(f"the candidate {dict(values)}", found.reason or "", "change its values")
        return str(found.source)

    def train_shared(self) -> dict[str, Any]:
        """The family's one training: `epochs`, `seconds`, `loss` of the largest; resumed at its last epoch.

        Raises:
            UsageError: the study has no family.
            ChildFailed: it failed, of kind ``diverged``, ``timeout``, ``oom``, ``signal`` or ``error``.
        """
        if self.study.family is None:
            raise UsageError("a shared training", "only a family has one", 'say family = "elastic"')
        out = self._shared
        if not (out / RESULT).exists():
            budget = self.study.shared
            args = {"budget": asdict(budget), "state": str(self._state(out)), "out": str(out)}
            self._call("train_shared", args, _limits(budget, "shared"), "the shared training")
        found: dict[str, Any] = json.loads((out / RESULT).read_text())
        return found

    def inherit(self, many: Sequence[Values]) -> list[Result]:
        """Candidates with their part of the shared weights, judged on "valid"; all by one process."""
        self.train_shared()
        more = {"whole": str(self._shared), "budget": asdict(self.study.shared)}
        folder, limits = f"inherited-{self._shared.name}", _limits(self.study.shared, "shared")
        return self._made(folder, many, "inherit", more, limits, "inheriting shared weights")

    def train(self, values: Values, budget: Budget | None = None, start: Result | None = None, why: str = "") -> Result:
        """Train one candidate from scratch, or from another result's weights; resumed at its last epoch.

        A failure comes back as data, and is tried again by the next call.

        Args:
            values: the candidate's.
            budget: of the training; by default the study's.
            start: where its weights come from.
            why: for the line about it.

        Raises:
            UsageError: the study's data can't be had, or its models aren't trained.
        """
        if self.study.pooled:
            raise UsageError("a training", "the models of a pool are there already", "leave it out")
        budget = budget or self.study.budget
        known = self.facts([values])[0]
        if known.key is None:
            return self._unbuilt(values, known)
        key = known.key
        begun = start.folder.parent.name if start else ""
        out = self.folder / "trained" / f"{key}-{content_id([budget.deciding, begun])}"
        if not (out / RESULT).exists():
            args: dict[str, Any] = {"values": dict(values), "budget": asdict(budget), "out": str(out)}
            args |= {"state": str(self._state(out)), "start": str(start.folder) if start else None}
            label, limits = f"training candidate {key}{why}", _limits(budget, "finetune" if start else "budget")
            try:
                _shorten(out / RESULT, self._call("train", args, limits, label)["halted_s"])
            except SeatrialError as error:
                if not own_failure(error):
                    raise
                return _failed(values, key, out, error)
        return _result(values, key, out)

    def finetune(self, values: Values) -> Result:
        """Train one candidate shortly from what it inherits."""
        start = self.inherit([values])[0]
        return start if start.status != "ok" else self.train(values, self.study.finetune, start, " further")

    def fidelity(self, many: Sequence[Values], budget: Budget | None = None) -> Fidelity:
        """Whether inherited accuracies order these candidates as stand-alone trainings do; failed ones are left out."""
        pairs = [
            (a, self.train(a.values, budget, why=" alone, to compare ranks"))
            for a in self.inherit(many)
            if a.status == "ok"
        ]
        both = [(a.accuracy, b.accuracy) for a, b in pairs if a.accuracy is not None and b.accuracy is not None]
        if len(both) < 3:
            return Fidelity(None, -1.0, 1.0, len(both))
        return fidelity([a for a, _ in both], [b for _, b in both])

    def spread(self, many: Sequence[Values], n: int = 6) -> list[Values]:
        """A few of these candidates, evenly over their work, for `fidelity`."""
        known = {f.key: (f.macs or 0, i) for i, f in enumerate(self.facts(many)) if f.key}
        order = [i for _, i in sorted(known.values())]
        n = min(n, len(order))
        return [many[order[round(k * (len(order) - 1) / max(n - 1, 1))]] for k in range(n)]

    def confirm(self, result: Result) -> Result:
        """The same result with its accuracy on "test", by which nothing may be chosen; ``test.npz`` beside it."""
        if not (result.folder / "test.json").exists():
            args = {"values": result.values, "folder": str(result.folder), "threads": self.study.budget.threads}
            self._call("confirm", args, self.limits, f"testing candidate {result.key}")
        return replace(result, tested=json.loads((result.folder / "test.json").read_text())["accuracy"])

    def data(self, values: Values, most: Mapping[str, int | None]) -> dict[str, Path]:
        """For each part of the data an ``.npz``, as the exporter's calibration and evaluation take it.

        Args:
            values: the candidate's; it counts where ``load_data`` gives each one data of its own.
            most: part ("train", "valid" or "test") → so many examples at most, evenly over the part.
        """
        own = dict(values) if self.study.data_of_each else None
        folder = self.folder / "data" / (content_id(own) if own else "")
        found = {part: folder / (f"{part}-{n}.npz" if n else f"{part}.npz") for part, n in most.items()}
        todo = [[part, most[part], str(out)] for part, out in found.items() if not out.exists()]
        if todo:
            folder.mkdir(parents=True, exist_ok=True)
            self._call("data", {"values": own, "parts": todo}, self.limits, "the data")
        return found

    def declare(self, program: Program) -> Program:
        """A pool's captured model with what the study file says: the data's classes, and how pictures become inputs.

        The latter of a model that doesn't say so itself.

        Raises:
            UsageError: its classes are in another order, or aren't known where there are labelled data.
        """
        told = self._declared
        asked = f"the classes of {program.name}"
        labels, own = told["labels"] or program.labels, program.labels
        if self.study.labelled and not labels:
            found = "neither the model nor the study file says them, and the data have labels"
            raise UsageError(asked, found, "define get_labels() in the study file")
        if own and labels and labels != own and sorted(labels) == sorted(own):
            found = "the model says them in another order than get_labels() of the study file"
            raise UsageError(asked, found, "let a model.py bring its outputs into the order of the data's labels")
        preprocess = Preprocess.from_dict(told["preprocess"]) if told["preprocess"] else None
        whole = replace(program, labels=labels, preprocess=program.preprocess or preprocess)
        if whole != program:
            whole.save()
        return whole

    @cached_property
    def _declared(self) -> dict[str, Any]:
        file = self.folder / "declared.json"
        if not file.exists():
            found = self._call("declared", {}, self.limits, "the study's classes") if self.study.functions else {}
            file.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as part:
                part.write_text(json.dumps({"labels": None, "preprocess": None, **found}))
        told: dict[str, Any] = json.loads(file.read_text())
        return told

    @property
    def largest(self) -> dict[str, Any]:
        """The family's largest candidate."""
        return elastic.extreme(self.study.family or {}, True)

    @property
    def _shared(self) -> Path:
        return self.folder / "shared" / content_id(self.study.shared.deciding)

    def _state(self, out: Path) -> Path:
        return self.folder / "state" / f"{out.name}.pt"

    def _pooled(self, values: Values) -> Facts:
        return Facts(content_id(detect(self.source(values)).identity()))

    def _made(
        self, folder: str, many: Sequence[Values], task: str, more: Mapping[str, Any], limits: Limits, label: str
    ) -> list[Result]:
        """Results of candidates in folders that are called by their keys; one for all that build the same graph."""
        known = self.facts(many)
        places = {f.key: self.folder / folder / f.key for f in known if f.key}
        wanted = [(dict(v), places[f.key]) for v, f in zip(many, known, strict=True) if f.key]
        failed = self._batch(task, list({out: (v, out) for v, out in wanted}.values()), more, limits, label)
        found = []
        for values, f in zip(many, known, strict=True):
            if f.key is None:
                found.append(self._unbuilt(values, f))
            elif error := failed.get(places[f.key]):
                found.append(_failed(values, f.key, places[f.key], error))
            else:
                found.append(_result(values, f.key, places[f.key]))
        return found

    def _unbuilt(self, values: Values, known: Facts) -> Result:
        return Result(dict(values), "", "failed", self.folder, known.error, "error")

    def _batch(
        self, task: str, many: list[tuple[Any, Path]], more: Mapping[str, Any], limits: Limits, label: str
    ) -> dict[Path, SeatrialError]:
        """Make what isn't there by one process; where that crashes, what it left undone gets one each."""
        todo = [(values, out) for values, out in many if not out.exists()]
        if not todo:
            return {}
        for _, out in todo:
            out.parent.mkdir(parents=True, exist_ok=True)
        try:
            answer = self._call(task, {"many": [[v, str(out)] for v, out in todo], **more}, limits, label)
        except ChildFailed as error:
            left = [(values, out) for values, out in todo if not out.exists()]
            if len(todo) == 1:
                return {out: error for _, out in left}
            return {k: e for one in left for k, e in self._batch(task, [one], more, limits, label).items()}
        return {Path(out): from_dict(error) for out, error in answer["failed"].items()}

    def _call(self, task: str, args: Mapping[str, Any], limits: Limits, label: str) -> dict[str, Any]:
        self.say(label)
        args = {"study": self.study.for_child, **args}
        # Another process may be asked the same at the same time, perhaps on another machine.
        log = self.folder / "log" / f"{task}-{content_id(args)}-{secrets.token_hex(4)}"
        with lease.shared(purpose=label, progress=self.say) as held:
            begun = process.start(f"{_TASKS}:{task}", args, workdir=log, limits=limits, label=label, env=_PATIENT)
            return {**begun.result(held.give_way), "halted_s": begun.child.halted_s}


def _limits(budget: Budget, table: str) -> Limits:
    """Of a training: more is given by its table in the study file, not by an option."""
    time, memory = (f"{name} of {table!r} in the study file" for name in ("timeout_s", "memory_gib"))
    return replace(budget.limits, options=(time, memory))


def _result(values: Values, key: str, folder: Path) -> Result:
    try:
        held = json.loads((folder / RESULT).read_text())
    except FileNotFoundError:  # an untrained one has no result
        return Result(dict(values), key, "ok", folder)
    known = {name: held[name] for name in ("accuracy", "n", "seconds", "epochs")}
    return Result(dict(values), key, "ok", folder, loss=tuple(held["loss"]), **known)


def _shorten(file: Path, halted_s: float) -> None:
    """Let a training's seconds be those in which it ran, not those in which it was halted for a measurement."""
    if halted_s:
        held = json.loads(file.read_text())
        with whole_file(file) as part:
            part.write_text(json.dumps({**held, "seconds": max(held["seconds"] - halted_s, 0.0)}))


def _failed(values: Values, key: str, folder: Path, error: SeatrialError) -> Result:
    return Result(dict(values), key, "failed", folder, error.found, getattr(error, "kind", "error"))
