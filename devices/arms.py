"""What is measured and how much of it: arms, plans, and the way from a path to an arm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.bundle import Bundle
from ..core.errors import SeatrialError, UsageError
from ..core.ids import content_id, files_id
from ..core.specs import TensorSpec
from . import feeds
from .device_profile import device_profile
from .feeds import Wishes
from .grid import Grid
from .probe import Probe, interpreter
from .stats import STATS

if TYPE_CHECKING:
    from ..core.samples import Feed

REFERENCE_DB = {"fp32": 60.0, "fp16": 40.0, "bf16": 12.0}
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
        batch: samples of one inference, where the user chose it.
        streams: inferences at the same time; None means one after the other, in one thread.
        limits: what its worker restricts itself to; see `device_profile.DeviceProfile.limits`.
        python: the interpreter that it is opened in, where that isn't left to its target.
    """

    name: str
    target: str
    artifact: str
    artifact_id: str
    settings: Mapping[str, Any]
    inputs: str
    reference: str | None = None
    precision: str = ""
    batch: int | None = None
    streams: int | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    python: str = ""

    @property
    def same(self) -> str:
        """Id of what is run, whatever its name: duplicates share it."""
        streams = [] if self.streams is None else [self.streams]
        limits = [dict(self.limits)] if self.limits else []
        python = [self.python] if self.python else []
        return content_id([self.target, self.artifact_id, dict(self.settings), self.inputs, *streams, *limits, *python])

    @property
    def interpreter(self) -> Path | None:
        """Where its worker runs; None for this interpreter."""
        from .. import targets

        return Path(self.python) if self.python else targets.interpreter(self.target, self.settings)

    @property
    def bar_db(self) -> float:
        """See `REFERENCE_DB`."""
        return REFERENCE_DB.get(self.precision, INT8_DB)

    def named(self, name: str) -> Arm:
        """The same under another name: a duplicate."""
        return replace(self, name=name)

    @classmethod
    def absent(cls, name: str) -> Arm:
        """Only a name, for what couldn't be read."""
        return cls(name, "", "", "", {}, "")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "settings": dict(self.settings), "limits": dict(self.limits)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Arm:
        """The inverse of `to_dict`; unknown keys are refused."""
        return cls(**_known(cls, "an arm", data))


FEWEST = 4
"""Iterations of a block that its median needs, if they take no longer than `Plan.block_ms`."""


@dataclass(frozen=True)
class Plan:
    """How much is measured; the defaults are the protocol's.

    Attributes:
        launches: how many, unless planned looks end a comparison earlier or later.
        rounds: in each launch; a round is one block per arm.
        splits: into so many shorter rounds where all arms keep enough iterations in a block; else half as many, or one.
        stat: of a block, ``median`` or ``lower_quartile``.
        block_ms: the least that the blocks of a round and its splits last together; it sets k once per arm.
        cold_ms: what may be spent before each block on iterations that aren't counted: other arms have used the caches.
        max_k: the most iterations of a block.
        streams_s: the least that a block of concurrent streams lasts.
    """

    launches: int = 6
    rounds: int = 12
    splits: int = 4
    stat: str = "median"
    block_ms: float = 40.0
    cold_ms: float = 5.0
    max_k: int = 4096
    streams_s: float = 0.25
    warm_iterations: int = 3
    warm_s: float = 0.2
    open_timeout_s: float = 300.0
    block_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if min(self.launches, self.rounds, self.splits) < 1:
            asked = f"{self.launches} launches of {self.rounds} rounds in {self.splits} splits"
            raise UsageError(asked, "less than one", "give at least 1")
        if self.stat not in STATS:
            raise UsageError(f"block statistic {self.stat!r}", "no such statistic", f"known: {', '.join(STATS)}")

    def iterations(self, usual_ms: float) -> int:
        """k of an arm: a split's share of `block_ms`, but as many as a median can be taken of if there is time."""
        enough = min(FEWEST, math.ceil(self.block_ms / usual_ms))
        return max(1, enough, min(self.max_k, math.ceil(self.block_ms / self.splits / usual_ms)))

    def split_rounds(self, counts: Sequence[int]) -> int:
        """Rounds of a launch, from k of all its arms; from nothing that varies from launch to launch."""
        fewest = min(counts, default=1)
        if fewest > FEWEST:
            return self.rounds * self.splits
        return self.rounds * (max(1, self.splits // 2) if fewest == FEWEST else 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`; unknown keys are refused."""
        return cls(**_known(cls, "a plan", data))


def arms_from_paths(
    paths: Sequence[str | Path], folder: Path, grid: Grid | None = None
) -> tuple[list[Arm], dict[str, SeatrialError]]:
    """The arms of each path, and by name the errors of paths that can't be one.

    Names are the shortest that tell the paths apart, with what the grid varies. `folder` takes inputs that are made.

    Raises:
        UsageError: what the grid asks for doesn't fit one of the models.
    """
    grid = grid or Grid()
    arms: list[Arm] = []
    failed: dict[str, SeatrialError] = {}
    known: dict[str, list[TensorSpec]] = {}
    for index, (path, name) in enumerate(zip(paths, _names(paths), strict=True)):
        try:
            model = _read(Path(path), name, here=not grid.pythons)
        except SeatrialError as error:
            failed[name] = error
            continue
        try:
            made, known[name] = _arms(model, grid, folder / f"inputs-{index}.npz")
            arms += made
        except UsageError:
            raise  # before minutes are spent on the others
        except SeatrialError as error:
            failed[name] = error
    if known:
        _check_known(grid.wishes, known)
    return arms, failed


def arm_from_path(
    path: str | Path,
    inputs: Path,
    name: str,
    *,
    threads: int | None = None,
    seed: int = 0,
    device: str | None = None,
    python: str | Path | None = None,
) -> Arm:
    """An arm out of a bundle's folder or a raw model file; `device` and `python` as of `Grid`.

    A bundle brings its settings, golden inputs and their outputs. A raw file gets its runtime's default
    settings for fp32 and, written to `inputs`, normally distributed ones from `seed`.

    Raises:
        UsageError: no such thing, or a raw file whose inputs can't be made up.
        CheckFailed: a file of the bundle isn't what its manifest says.
        CannotDo: its runtime isn't here, or doesn't load it.
    """
    grid = Grid(
        threads=(threads,) if threads else (),
        wishes=Wishes(seed=seed),
        profile=device_profile(device) if device else None,
        pythons=(interpreter(python),) if python else (),
    )
    return _arms(_read(Path(path), name, here=not python), grid, inputs)[0][0]


def model_id(main: Path) -> str:
    """Content id of a model's main file with the weights that lie beside it under its name."""
    beside = [main.with_suffix(".bin")] if main.suffix == ".xml" else [main.with_name(main.name + ".data")]
    return files_id([main, *(file for file in beside if file.is_file())])


@dataclass(frozen=True)
class _Model:
    """What lies at a path. A raw file has no golden vectors, and doesn't tell what it takes before it is opened."""

    name: str
    target: str
    main: Path
    settings: dict[str, Any]
    precision: str = ""
    bundle: Bundle | None = None

    @property
    def golden(self) -> tuple[Path, Path] | None:
        """Of a bundle: the files of inputs and outputs."""
        if self.bundle is None:
            return None
        inputs, outputs = self.bundle.golden
        return inputs.absolute(), outputs.absolute()


def _read(path: Path, name: str, here: bool = True) -> _Model:
    """The model; where it is to be opened in this interpreter, its runtime must be here."""
    from .. import targets

    require = targets.require if here else targets.get
    if path.is_file():
        target = require(targets.for_file(path.suffix).name)
        return _Model(name, target.name, path.absolute(), target.settings("fp32"))
    bundle = Bundle.read(path)
    bundle.check_files()
    require(bundle.target)
    return _Model(name, bundle.target, bundle.model.absolute(), bundle.settings, bundle.precision, bundle)


def _arms(model: _Model, grid: Grid, inputs: Path) -> tuple[list[Arm], list[TensorSpec]]:
    """One arm for each combination of the grid, and what the model takes where that was asked."""
    rows = grid.settings_of(model.target, model.settings)
    fed: dict[int | None, tuple[Path, Path | None]] = {}
    specs: list[TensorSpec] = []
    if model.golden and not grid.own_inputs and not grid.settings:
        outputs = model.golden[1] if model.golden[1].is_file() else None
        fed[None] = model.golden[0], outputs
    else:
        with Probe(model.target, model.main, model.settings, grid.pythons[0] if grid.pythons else "") as probe:
            # Threads apart, which every target knows, all settings are tried before minutes are spent.
            for settings in {content_id({**s, "threads": 1}): s for _, s in rows}.values():
                specs = probe.open(settings)
            specs = model.bundle.inputs if model.bundle else specs  # with ranges of integers
            for _, batch, _ in grid.loads():
                fed[batch] = fed.get(batch) or _fed(model, specs, grid, batch, inputs, probe)
    arms, artifact_id = [], model_id(model.main)
    for (words, settings), (more, batch, streams), (last, python) in product(rows, grid.loads(), grid.interpreters()):
        name = ", ".join([model.name, *words, *more, *last])
        feed, reference = (str(file) if file else None for file in fed[batch])
        what = (model.target, str(model.main), artifact_id, settings, str(feed), reference)
        arms.append(Arm(name, *what, model.precision, batch, streams, grid.limits, python))
    return arms, specs


def _fed(
    model: _Model, specs: Sequence[TensorSpec], grid: Grid, batch: int | None, out: Path, probe: Probe
) -> tuple[Path, Path | None]:
    """The files with inputs and, where they are known, outputs: golden ones of these sizes, or made up and tried."""
    named = {spec.name: grid.wishes.shapes[spec.name] for spec in specs if spec.name in grid.wishes.shapes}
    own = bool(grid.wishes.file) or any(spec.name in grid.wishes.ranges for spec in specs)
    golden = samples.load(model.golden[0]) if model.golden and not own else []
    out = out if batch is None else out.with_name(f"{out.stem}-{batch}.npz")
    fits = [i for i, one in enumerate(golden) if _fits(one, named, batch)]
    if fits and model.golden:
        if fits[0] == 0:
            return model.golden[0], model.golden[1] if model.golden[1].is_file() else None
        order = [fits[0], *(i for i in range(len(golden)) if i != fits[0])]
        outputs = samples.load(model.golden[1])
        reference = out.with_name(f"{out.stem}-outputs.npz")
        samples.save(out, [golden[fits[0]]])
        samples.save(reference, [outputs[i] for i in order])
        return out, reference
    asked = model.name if batch is None else f"{model.name} with batch {batch}"
    if golden and not named and batch is not None:
        made = feeds.repeated(golden[0], batch, asked)
    else:
        made = feeds.feed(specs, grid.wishes, batch, asked)
    samples.save(out, [made])
    if grid.own_inputs:
        other = "give sizes that fit" if batch is None else "for other batches export it with --dynamic batch=1:8"
        probe.first(out, asked, f"it takes {', '.join(map(str, specs))}; {other}")
    return out, None


def _fits(feed: Feed, named: Mapping[str, Sequence[int]], batch: int | None) -> bool:
    """Whether a golden feed has the sizes that are asked for."""
    shaped = all(list(feed[name].shape) == list(sizes) for name, sizes in named.items() if name in feed)
    return shaped and (batch is None or all(array.shape[:1] == (batch,) for array in feed.values()))


def _check_known(wishes: Wishes, known: Mapping[str, Sequence[TensorSpec]]) -> None:
    inputs = {spec.name for specs in known.values() for spec in specs}
    for option, given in (("--shape", wishes.shapes), ("--range", wishes.ranges)):
        unknown = sorted(set(given) - inputs)
        if unknown:
            have = "; ".join(f"{name}: {', '.join(map(str, specs))}" for name, specs in known.items())
            raise UsageError(f"{option} {unknown[0]}=...", "no model has such an input", f"they have: {have}")


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
