"""A study file: what is searched, in a user's ``study.py`` or ``study.toml``; read as data, its code by children."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core import process
from ..core.config import from_mapping, read_toml, refuse_unknown
from ..core.errors import UsageError
from ..core.ids import content_id
from ..core.paths import check_readable
from ..core.process import GIB, Limits
from ..exporter.sources import detect
from .models import elastic

DATA: dict[str, tuple[type, ...]] = {
    "space": (dict,),
    "forbidden": (list,),
    "family": (str, dict),
    "weights": (str,),
    "training": (list,),
    "objectives": (list,),
    "constraints": (list,),
    "targets": (list,),
    "precisions": (list,),
    "devices": (list,),
    "search": (dict,),
    "budget": (dict,),
    "shared": (dict,),
    "finetune": (dict,),
}
"""What a study file may say as data, and of which type each is."""
FUNCTIONS = ("build", "get_args", "train", "load_data", "get_labels", "get_preprocess")
"""What a study file may define as code."""
UNLABELLED = ("latency_ms", "size_bytes")
"""Objectives of a pool without labelled data, where it says none: what its models are worth is not known."""
SHARED, OWN = "shared", "own"
"""Where weights of a family come from: one training for all, or one of each model's own."""
SOURCE = "source"
"""The variable whose choices are whole models."""
_KINDS: dict[type, str] = {dict: "a table", list: "a list", str: "text"}
_BUDGETS: dict[str, dict[str, Any]] = {"budget": {}, "shared": {"epochs": 20}, "finetune": {"epochs": 3, "lr": 1e-3}}
_READ = Limits(timeout_s=120.0)


@dataclass(frozen=True)
class Budget:
    """What one training may use.

    Attributes:
        epochs: passes over the training data.
        batch: examples a step.
        lr: highest learning rate of ours; a user's own `train` may read it.
        seed: of weights, order and whatever else is random.
        threads: of torch; where other programs run too, two are many times slower than one.
        timeout_s: seconds for the whole of it.
        memory_gib: resident memory; None for no limit.
    """

    epochs: int = 10
    batch: int = 64
    lr: float = 3e-3
    seed: int = 0
    threads: int = 1
    timeout_s: float = 1800.0
    memory_gib: float | None = None

    def __post_init__(self) -> None:
        _check_whole(self, ("epochs", "batch", "threads"), 1)
        _check_whole(self, ("seed",), 0)
        for name in ("lr", "timeout_s", "memory_gib"):
            value = getattr(self, name)
            if value is not None and not _positive(value):
                raise ValueError(f"{name} = {value!r} is not a number above 0")

    @property
    def deciding(self) -> dict[str, Any]:
        """What of it decides the weights: a training that was given more time is the same one."""
        return {k: v for k, v in asdict(self).items() if k not in ("timeout_s", "memory_gib")}

    @property
    def limits(self) -> Limits:
        """Of the process that trains."""
        return Limits(self.timeout_s, int(self.memory_gib * GIB) if self.memory_gib else None)


@dataclass(frozen=True)
class Effort:
    """How much is searched, and how; what of it a command line says comes first.

    Attributes:
        evaluations: models at most.
        minutes: after so many no other model is begun; None for no limit.
        sampler: see `samplers.make`; None for the default.
        threads: of each deployment that is searched; the winners are tried with all cores too.
        examples: of "valid" and of "test" at most that deployments are judged on.
        calibration: of "train" at most that int8 is calibrated on.
        seed: of the sampler and of measurements.
    """

    evaluations: int = 40
    minutes: float | None = None
    sampler: str | None = None
    threads: int = 1
    examples: int = 2000
    calibration: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        _check_whole(self, ("evaluations", "threads", "examples", "calibration"), 1)
        _check_whole(self, ("seed",), 0)
        if self.minutes is not None and not _positive(self.minutes):
            raise ValueError(f"minutes = {self.minutes!r} is not a number above 0")


def _check_whole(data: object, names: Sequence[str], least: int) -> None:
    for name in names:
        value = getattr(data, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} = {value!r} is not a whole number from {least} up")


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


@dataclass(frozen=True)
class StudyFile:
    """Frozen data; what is code is named, never held.

    Attributes:
        path: of the file.
        code: the ``.py`` with the functions; None where there is none.
        functions: those of `FUNCTIONS` that it defines.
        code_id: content id of that code, without what it says as data, and of the modules beside it that it imports.
        space: variables as `Space.from_dict` reads them; of a family with what the file changes of them.
        forbidden: combinations as `Space.from_dict` reads them.
        family: options of the elastic family, complete; None for a user's own models.
        training: variables that change how a model is trained and not its graph.
        objectives: as written.
        constraints: as written.
        targets: names of targets.
        precisions: names of precisions.
        devices: names of device profiles, or paths of TOML files, from this one's folder; none for this machine.
        data_of_each: whether `load_data` gives each candidate data of its own.
        search: how much is searched.
        weights: of a family: `SHARED` or `OWN`.
        budget: of one training from scratch.
        shared: of the family's shared training.
        finetune: of one training that starts from inherited weights.
    """

    path: Path
    code: Path | None
    functions: tuple[str, ...]
    code_id: str
    space: dict[str, Any]
    forbidden: list[Any] = field(default_factory=list)
    family: dict[str, Any] | None = None
    training: tuple[str, ...] = ()
    objectives: list[Any] = field(default_factory=list)
    constraints: list[Any] = field(default_factory=list)
    targets: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    data_of_each: bool = False
    search: Effort = Effort()
    weights: str = SHARED
    budget: Budget = Budget()
    shared: Budget = Budget()
    finetune: Budget = Budget()

    @property
    def labelled(self) -> bool:
        """Whether there are labelled data; a pool may do without."""
        return "load_data" in self.functions

    @property
    def pooled(self) -> bool:
        """Whether candidates are whole models that are there already."""
        return SOURCE in self.space

    @property
    def pool(self) -> list[str]:
        """The models of a pool, as written."""
        choices = self.space.get(SOURCE, [])
        found = choices.get("choices", []) if isinstance(choices, Mapping) else choices
        return [str(text) for text in found]

    def pooled_model(self, text: str) -> str:
        """A model of the pool as the exporter takes it; its files lie beside the study file."""
        scheme, colon, rest = text.partition(":")
        beside = self.path.resolve().parent
        if colon and scheme == "hf":
            return f"hf:{beside / rest}"
        if colon and scheme == "timm":
            head, weights, rest = text.partition("weights=")
            file, ampersand, more = rest.partition("&")
            return f"{head}{weights}{beside / file}{ampersand}{more}" if weights and file != "random" else text
        return str(beside / text)

    @property
    def id(self) -> str:
        """Of all that decides what a candidate is and how it is trained; objectives and targets are no part of it."""
        return content_id([self.code_id, self.space, self.forbidden, self.family, list(self.training)])

    @property
    def for_child(self) -> dict[str, Any]:
        """What the processes that run its code are told, as JSON data."""
        code = str(self.code.resolve()) if self.code else None
        return {"code": code, "functions": list(self.functions), "family": self.family, "training": list(self.training)}


def read(path: Path | str) -> StudyFile:
    """Read a ``study.py`` (by a child, which runs it) or a ``study.toml``.

    Raises:
        UsageError: it is missing, of another kind, says what isn't known, or lacks what it needs.
        ChildFailed: the user's file raises an error.
    """
    path = Path(path)
    asked = f"the study file {path}"
    check_readable(path, asked)
    if path.suffix not in (".py", ".toml") or not path.is_file():
        raise UsageError(asked, "neither a .py nor a .toml file", "write a study.py; docs/architecture.md shows one")
    if path.suffix == ".py":
        told = _declared(path)
        return _made(path, path, told, told["data"], asked)
    data = read_toml(path)
    refuse_unknown(data.keys(), [*DATA, "file"], asked)
    file = data.pop("file", None)
    if file is None:
        return _made(path, None, {"functions": [], "id": ""}, data, asked)
    code = path.parent / str(file)
    check_readable(code, f"{asked}: file")
    told = _declared(code)
    if told["data"]:
        found = f"{code.name} says {', '.join(told['data'])}"
        raise UsageError(f"{asked}: file", found, f"say it in {path.name}; {code.name} is for functions")
    return _made(path, code, told, data, asked)


def _declared(path: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        args = {"path": str(path)}
        label = f"the study file {path}"
        task = "seatrial.search.models.declare:declare"
        return process.call(task, args, workdir=Path(folder), limits=_READ, label=label)


def _made(path: Path, code: Path | None, told: Mapping[str, Any], data: Mapping[str, Any], asked: str) -> StudyFile:
    for key, value in data.items():
        kinds = DATA[key]
        if not isinstance(value, kinds):
            todo = f"write {' or '.join(_KINDS[kind] for kind in kinds)}"
            raise UsageError(f"{asked}: {key}", f"{value!r}", todo)
    family = _family(data.get("family"), asked)
    if "weights" in data and (family is None or data["weights"] not in (SHARED, OWN)):
        said = repr(data["weights"]) + ("" if family else " without a family")
        raise UsageError(f"{asked}: weights", said, f'of a family, "{SHARED}" or "{OWN}"; else leave it out')
    space = dict(data.get("space", {}))
    if family is not None:
        space = _narrowed(elastic.space(family), space, f"{asked}: space")
    more: dict[str, Any] = {k: data[k] for k in ("forbidden", "objectives", "constraints", "weights") if k in data}
    for key in ("training", "targets", "precisions", "devices"):
        more[key] = _names(data.get(key, []), f"{asked}: {key}")
    more["search"] = from_mapping(Effort, data.get("search", {}), f"{asked}: search")
    for key, default in _BUDGETS.items():
        more[key] = from_mapping(Budget, {**default, **data.get(key, {})}, f"{asked}: {key}")
    refuse_unknown(more["training"], space, f"{asked}: training")
    more["data_of_each"] = told.get("data_of_each", False)
    found = StudyFile(path, code, tuple(told["functions"]), told["id"], space, family=family, **more)
    if not found.labelled:
        found = replace(found, objectives=found.objectives or list(UNLABELLED))
    _check(found, asked)
    return found


def _narrowed(whole: Mapping[str, list[Any]], given: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """The family's variables, some with fewer choices, and the user's own beside them."""
    for name, choices in whole.items():
        fewer = given.get(name, choices)
        if not isinstance(fewer, list) or not all(x in choices for x in fewer):
            raise UsageError(f"{asked}: {name}", f"{fewer!r}", f"the family's own: choose some of {choices}")
    return {**whole, **given}


def _family(data: str | Mapping[str, Any] | None, asked: str) -> dict[str, Any] | None:
    if data is None:
        return None
    options = {"name": data} if isinstance(data, str) else dict(data)
    name = options.pop("name", None)
    if name != "elastic":
        raise UsageError(f"{asked}: family", f"no family {name!r}", "there is one: elastic")
    return elastic.complete(options, f"{asked}: family")


def _names(data: list[Any], asked: str) -> tuple[str, ...]:
    if not all(isinstance(name, str) for name in data) or len({*data}) < len(data):
        raise UsageError(asked, f"{data!r}", "write a list of names, each once")
    return tuple(data)


def _check(found: StudyFile, asked: str) -> None:
    """What gives a candidate's model is there, once."""
    own = "build" in found.functions
    ways = [name for name, here in (("family", found.family), ("build()", own), (SOURCE, found.pooled)) if here]
    if len(ways) != 1:
        todo = 'define build(candidate), or say family = "elastic", or let a variable `source` of the space name models'
        raise UsageError(asked, f"{' and '.join(ways)} at once" if ways else "nothing gives a candidate's model", todo)
    if not found.space:
        raise UsageError(f"{asked}: space", "it is missing", "write each variable as NAME = [VALUES]")
    if own and "get_args" not in found.functions:
        raise UsageError(asked, "no get_args()", "define get_args(candidate): example inputs, a tuple of tensors")
    if found.pooled and found.training:
        raise UsageError(f"{asked}: training", "models that are there are not trained", "leave it out")
    if not found.pooled and "load_data" not in found.functions:
        raise UsageError(asked, "no load_data()", 'define load_data(part) for "train", "valid", "test"')
    if found.data_of_each and not found.pooled:
        raise UsageError(asked, "load_data() takes a candidate", "define load_data(part): one set of data for all")
    for text in found.pool:
        detect(found.pooled_model(text))  # a slip of the pen is told before the others are worked on
