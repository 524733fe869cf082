"""What the gate can resolve on this machine: comparisons whose truth is known, and how often the verdict was right.

The truth comes from arithmetic, not from an instrument: a graph of equal blocks against one with more of them. Sessions
add up over runs in a file of JSON lines; those of another machine, runtime, rule or load don't count.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, MissingPart, UsageError
from ..core.ids import content_id
from ..core.paths import cache_dir, writing
from ..core.process import Child
from . import facts
from .arms import Arm, arm_from_path
from .compare import compare
from .gate import Verdict
from .sitting import PROTOCOL, Progress
from .stats import Interval, share_interval

BLOCKS, ROWS, WIDTH = 100, 48, 128
"""The base: so many equal blocks of MatMul and Tanh; a slowdown of 5 % is five blocks more."""

SECONDS = {False: 20.0, True: 12.0}
"""A session's usual length, full and quick, before one was seen here."""

_BUSY = "from seatrial.core.child import die_with_parent\ndie_with_parent()\nwhile True: pass"


@dataclass(frozen=True)
class Setup:
    """What sessions are comparable by.

    Attributes:
        tolerate: see `gate.Rule`.
        detect: see `gate.Rule`; 0.05, or 0.10 with `quick`.
        quick: one look at few launches.
        threads: of every arm.
        busy: processes that keep the machine busy meanwhile.
    """

    tolerate: float = 0.01
    detect: float | None = None
    quick: bool = False
    threads: int | None = None
    busy: int = 0


@dataclass(frozen=True)
class Kind:
    """All sessions of one true slowdown.

    Attributes:
        slower: the truth, as a fraction; 0 for a model against itself.
        sessions: how many.
        verdicts: how often each was given.
        right: share of PASS where nothing is slower, of REGRESS otherwise, with an exact binomial interval.
        off: |measured ratio / true ratio - 1|: median and largest.
        half_width: of the ratio's interval, median.
        launches: mean.
        minutes: all together.
    """

    slower: float
    sessions: int
    verdicts: Mapping[str, int]
    right: Interval
    off: tuple[float, float] | None
    half_width: float | None
    launches: float
    minutes: float

    @property
    def name(self) -> str:
        """``A/A`` or ``+5 %``."""
        return f"+{100 * self.slower:g} %" if self.slower else "A/A"

    def share(self, verdict: str) -> Interval:
        """How often a verdict was given, with its exact binomial interval."""
        return share_interval(self.verdicts.get(verdict, 0), self.sessions)


@dataclass(frozen=True)
class Noise:
    """What `noise` found: a row for each true slowdown, and what the sessions have in common."""

    kinds: list[Kind]
    about: dict[str, Any]
    file: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        kinds = [{"name": k.name, **asdict(k), "right": k.right.to_dict()} for k in self.kinds]
        return {"schema": "seatrial.noise/1", "kinds": kinds, "about": self.about, "file": str(self.file)}


def noise(
    wanted: Mapping[float, int],
    *,
    model: Path | str | None = None,
    setup: Setup = Setup(),
    file: Path | None = None,
    progress: Progress | None = None,
    between: Callable[[], None] | None = None,
) -> Noise:
    """Run the sessions that are missing, and sum all up.

    Args:
        wanted: true slowdown → how many sessions there are to be in all; 0.0 is a model against itself.
        model: a bundle or model file for the sessions without a slowdown; by default the chain of blocks.
        setup: how they are run.
        file: holds the sessions; by default one in the user's cache directory.
        progress: takes a line about each session.
        between: called after each: a benchmark's peers take their turn.

    Raises:
        UsageError: a slowdown that the blocks can't give, or a model that can't be timed.
        CannotDo: no runtime here.
        NotWritten: the file can't be written.
    """
    wanted = dict(sorted(wanted.items()))
    say = progress or (lambda text: None)
    file = file or cache_dir() / "noise" / "sessions.jsonl"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seatrial-")))
        pairs = {slower: _pair(slower, model, setup, folder) for slower in wanted}
        about = _about(pairs, setup)
        key = content_id(about)
        seen = recorded(file, key)
        todo = _missing(wanted, seen)
        if todo:
            stack.enter_context(_busy(setup.busy, folder))
        for done, slower in enumerate(todo):
            say(_plan(done, len(todo), slower, seen, setup))
            record = {"key": key, "about": about, **_session(pairs[slower], slower, setup)}
            keep(file, record)
            seen.append(record)
            if between:
                between()
    return Noise([_kind(slower, seen) for slower in wanted], about, file)


def write_chain(path: Path, blocks: int) -> Path:
    """An ONNX file of equal blocks that share their weights, so that a block more needs no more memory."""
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise MissingPart("a slowdown of known size", "the module onnx is not installed", "pip install onnx") from None
    import numpy as np

    weights = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / np.float32(WIDTH**0.5)
    nodes, at = [], "x"
    for i in range(blocks):
        out = "y" if i == blocks - 1 else f"t{i}"
        nodes += [helper.make_node("MatMul", [at, "w"], [f"m{i}"]), helper.make_node("Tanh", [f"m{i}"], [out])]
        at = out
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def _extra(slower: float) -> int:
    """Blocks more than the base has."""
    extra = round(slower * BLOCKS)
    if slower < 0 or not math.isclose(extra, slower * BLOCKS, abs_tol=1e-9):
        step = f"{1 / BLOCKS:.0%}"
        raise UsageError(f"a slowdown of {slower:.2%}", f"blocks give steps of {step}", f"give a multiple of {step}")
    return extra


def _pair(slower: float, model: Path | str | None, setup: Setup, folder: Path) -> tuple[Arm, Arm]:
    """Base and candidate of a slowdown; without one, the same thing twice."""
    inputs = folder / "inputs.npz"
    if model is not None and not slower:
        arm = arm_from_path(model, inputs, Path(model).name, threads=setup.threads)
        return arm, arm
    extra = _extra(slower)
    paths = [write_chain(folder / f"blocks-{count}.onnx", count) for count in (BLOCKS, BLOCKS + extra)]
    base, other = (arm_from_path(path, inputs, path.name, threads=setup.threads) for path in paths)
    return base, other


def _about(pairs: Mapping[float, tuple[Arm, Arm]], setup: Setup) -> dict[str, Any]:
    """What figures hold for; sessions of anything else aren't added to them."""
    from .. import targets

    arms = {arm.artifact_id: arm for pair in pairs.values() for arm in pair}
    return {
        "protocol": PROTOCOL,
        "setup": asdict(setup),
        "host": facts.host_facts()["identity"],
        "models": sorted(arms),
        "runtimes": {arm.target: targets.require(arm.target).version() for arm in arms.values()},
    }


def _missing(wanted: Mapping[float, int], seen: Sequence[Mapping[str, Any]]) -> list[float]:
    """The slowdowns of the sessions to run, mixed, so that a part of them is already worth reading."""
    have = Counter(record["slower"] for record in seen)
    left = {slower: max(0, count - have[slower]) for slower, count in wanted.items()}
    turns = [((i + 0.5) / count, slower) for slower, count in left.items() for i in range(count)]
    return [slower for _, slower in sorted(turns)]


def _plan(done: int, todo: int, slower: float, seen: Sequence[Mapping[str, Any]], setup: Setup) -> str:
    usual = statistics.mean(r["seconds"] for r in seen) if seen else SECONDS[setup.quick]
    minutes = (todo - done) * usual / 60
    last = f"; the last was {seen[-1]['verdict']}" if seen else ""
    name = f"+{slower:.0%}" if slower else "A/A"
    return f"session {done + 1} of {todo}, {name}: about {minutes:.0f} minutes left{last}"


@contextmanager
def _busy(count: int, folder: Path) -> Iterator[None]:
    """Other processes that never rest."""
    children = [Child([sys.executable, "-P", "-c", _BUSY], folder / f"busy-{i}.log") for i in range(count)]
    try:
        if children:
            time.sleep(1)
        for child in children:
            if child.process.poll() is not None:
                raise CannotDo("keep the machine busy", child.log.read_text()[-500:], "run without --busy")
        yield
    finally:
        for child in children:
            child.kill()


def _session(pair: tuple[Arm, Arm], slower: float, setup: Setup) -> dict[str, Any]:
    """One comparison, and what is kept of it."""
    found = compare(*pair, tolerate=setup.tolerate, detect=setup.detect, quick=setup.quick)
    decision = found.decision
    notes = [n for launch in found.launches for run in launch.arms.values() for n in run.notes]
    return {
        "slower": slower,
        "verdict": str(decision.verdict),
        "reason": decision.reason,
        "log": decision.effect.centre if decision.effect else None,
        "half_width": decision.effect.half_width if decision.effect else None,
        "launches": len(found.launches),
        "base_ms": found.base.latency.centre if found.base.latency else None,
        "steal_s": sum(n.get("steal_s", 0.0) for n in notes),
        "load": max((n.get("load_1m", 0.0) for n in notes), default=None),
        "seed": found.seed,
        "seconds": found.seconds,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def recorded(file: Path, key: str) -> list[dict[str, Any]]:
    """The records of this setup in a file of JSON lines; a line that a kill left half-written is none.

    Raises:
        UsageError: it can't be read.
    """
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"the sessions in {file}", f"can't be read: {error.strerror}", "check the path") from error
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("key") == key:
            found.append(record)
    return found


def keep(file: Path, record: Mapping[str, Any]) -> None:
    """Add a record, on a line of its own.

    Raises:
        NotWritten: it can't be written.
    """
    with writing(f"the sessions in {file}"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as out:
            out.seek(max(0, out.seek(0, os.SEEK_END) - 1))
            whole = out.read() in (b"", b"\n")
            out.write((b"" if whole else b"\n") + json.dumps(record).encode() + b"\n")


def _kind(slower: float, seen: Sequence[Mapping[str, Any]]) -> Kind:
    records = [record for record in seen if record["slower"] == slower]
    verdicts = Counter(record["verdict"] for record in records)
    wanted = Verdict.REGRESS if slower else Verdict.PASS
    off = [abs(math.expm1(r["log"] - math.log1p(slower))) for r in records if r["log"] is not None]
    widths = [r["half_width"] for r in records if r["half_width"] is not None and math.isfinite(r["half_width"])]
    return Kind(
        slower,
        len(records),
        dict(verdicts),
        share_interval(verdicts[str(wanted)], len(records)),
        (statistics.median(off), max(off)) if off else None,
        statistics.median(widths) if widths else None,
        statistics.mean(r["launches"] for r in records) if records else 0.0,
        sum(r["seconds"] for r in records) / 60,
    )
