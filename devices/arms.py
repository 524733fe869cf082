"""What is measured and how much of it: arms, plans, and the way from a path to an arm."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.bundle import Bundle
from ..core.errors import CannotDo, SeatrialError, UsageError
from ..core.ids import content_id, files_id
from ..core.specs import TensorSpec
from .stats import STATS

REFERENCE_DB = {"fp32": 60.0, "fp16": 40.0, "bf16": 25.0}
INT8_DB = 8.0
"""Bars of the one check before timing. They only catch an arm that computes something else."""


@dataclass(frozen=True)
class Arm:
    """One thing to time: an artifact with its settings.

    Attributes:
        name: unique within a session, for people.
        target: name of the runtime.
        artifact: path of the model's main file.
        artifact_id: content id of all its files.
        settings: the runtime's, flat JSON data.
        inputs: path of a Samples file, whose first feed is timed.
        reference: path of a Samples file with the outputs that are expected for `inputs`, or None.
        precision: that it was made for; what really ran is measured.
    """

    name: str
    target: str
    artifact: str
    artifact_id: str
    settings: Mapping[str, Any]
    inputs: str
    reference: str | None = None
    precision: str = ""

    @property
    def same(self) -> str:
        """Id of what is run, whatever its name: duplicates share it."""
        return content_id([self.target, self.artifact_id, dict(self.settings), self.inputs])

    @property
    def bar_db(self) -> float:
        """See `REFERENCE_DB`."""
        return REFERENCE_DB.get(self.precision, INT8_DB)

    def named(self, name: str) -> Arm:
        """The same under another name: a duplicate."""
        return replace(self, name=name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Arm:
        """The inverse of `to_dict`; unknown keys are refused."""
        return cls(**_known(cls, "an arm", data))


@dataclass(frozen=True)
class Plan:
    """How much is measured; the defaults are the protocol's.

    Attributes:
        launches: how many, unless planned looks end a comparison earlier or later.
        rounds: in each launch; a round is one block per arm.
        stat: of a block, ``median`` or ``lower_quartile``.
        block_ms: the least that a block lasts; it sets k once per arm.
        max_k: the most iterations of a block.
    """

    launches: int = 6
    rounds: int = 12
    stat: str = "median"
    block_ms: float = 40.0
    max_k: int = 4096
    warm_iterations: int = 3
    warm_s: float = 0.2
    open_timeout_s: float = 300.0
    block_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if self.launches < 1 or self.rounds < 1:
            raise UsageError(f"{self.launches} launches of {self.rounds} rounds", "less than one", "give at least 1")
        if self.stat not in STATS:
            raise UsageError(f"block statistic {self.stat!r}", "no such statistic", f"known: {', '.join(STATS)}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`; unknown keys are refused."""
        return cls(**_known(cls, "a plan", data))


def arms_from_paths(
    paths: Sequence[str | Path], folder: Path, *, threads: int | None = None, seed: int = 0
) -> tuple[list[Arm], dict[str, SeatrialError]]:
    """An arm for each path, and the errors of those that can't be one by their names.

    Names are the shortest that tell the paths apart. `folder` takes the inputs that are made for raw model
    files.
    """
    arms, failed = [], {}
    for index, (path, name) in enumerate(zip(paths, _names(paths), strict=True)):
        try:
            arms.append(arm_from_path(path, folder / f"inputs-{index}.npz", name, threads=threads, seed=seed))
        except SeatrialError as error:
            failed[name] = error
    return arms, failed


def arm_from_path(path: str | Path, inputs: Path, name: str, *, threads: int | None = None, seed: int = 0) -> Arm:
    """An arm out of a bundle's folder or a raw model file.

    A bundle brings its settings, golden inputs and their outputs. A raw file gets its runtime's default
    settings for fp32 and, written to `inputs`, normally distributed ones from `seed`.

    Raises:
        UsageError: no such thing, or a raw file whose inputs can't be made up.
        CheckFailed: a file of the bundle isn't what its manifest says.
        CannotDo: its runtime isn't here, or doesn't load it.
    """
    path = Path(path)
    if not path.is_file():
        return _arm_from_bundle(Bundle.read(path), name, threads)
    from .. import targets

    target = targets.require(targets.for_file(path.suffix).name)
    settings = target.settings("fp32", threads or 1)
    _make_inputs(path, target.name, settings, inputs, seed)
    return Arm(name, target.name, str(path.absolute()), model_id(path), settings, str(inputs.absolute()))


def model_id(main: Path) -> str:
    """Content id of a model's main file with the weights that lie beside it under its name."""
    beside = [main.with_suffix(".bin")] if main.suffix == ".xml" else [main.with_name(main.name + ".data")]
    return files_id([main, *(file for file in beside if file.is_file())])


def _arm_from_bundle(bundle: Bundle, name: str, threads: int | None) -> Arm:
    from .. import targets

    bundle.check_files()
    targets.require(bundle.target)
    inputs, outputs = (path.absolute() for path in bundle.golden)
    settings = bundle.settings | ({"threads": threads} if threads else {})
    model = bundle.model.absolute()
    reference = str(outputs) if outputs.is_file() else None
    return Arm(name, bundle.target, str(model), model_id(model), settings, str(inputs), reference, bundle.precision)


def _make_inputs(path: Path, target: str, settings: Mapping[str, Any], out: Path, seed: int) -> None:
    """Normally distributed inputs for a model that says by itself what it takes."""
    import numpy as np

    from ..core import samples

    rng = np.random.default_rng(seed)
    feed = {}
    for spec in _inputs_of(path, target, settings):
        if spec.is_free or np.dtype(spec.dtype).kind != "f":
            found = "an axis without a fixed size" if spec.is_free else "not a float input"
            todo = "export it with `seatrial export --inputs x.npz` and give the bundle"
            raise UsageError(f"{path}: make up the input {spec}", found, todo)
        feed[spec.name] = rng.standard_normal([int(axis) for axis in spec.shape]).astype(spec.dtype)
    samples.save(out, [feed])


def _inputs_of(path: Path, target: str, settings: Mapping[str, Any]) -> list[TensorSpec]:
    """Asked of a worker, so that a file that crashes its runtime doesn't take us along."""
    from .. import targets
    from .resident import ArmFailed, Resident

    with (
        tempfile.TemporaryDirectory(prefix="seatrial-") as folder,
        Resident(Path(folder, "log.txt"), targets.interpreter(target, settings)) as worker,
    ):
        try:
            opened = worker.ask("open", 300.0, target=target, artifact=str(path), settings=dict(settings))
        except ArmFailed as failed:
            raise CannotDo(f"load {path} in {target}", failed.reason, "is the file whole?") from failed
    return [TensorSpec.from_dict(spec) for spec in opened["inputs"]]


def _names(paths: Sequence[str | Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart; a number where they are the same."""
    parts = [Path(path).absolute().parts for path in paths]
    names: list[str] = []
    for count in range(1, max((len(p) for p in parts), default=0)):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [name if names.index(name) == i else f"{name} #{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def _known(cls: type, what: str, data: Mapping[str, Any]) -> dict[str, Any]:
    allowed = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(data) - set(allowed))
    if unknown:
        raise UsageError(f"{what} with {', '.join(unknown)}", "no such key", f"known: {', '.join(allowed)}")
    return dict(data)
