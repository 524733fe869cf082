"""One launch: fresh workers for all arms, then rounds of one block per arm in random, balanced order.

Only one worker runs at a time; all the others sleep. An arm that fails is data, and the others go on.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import facts
from .arms import Arm, Plan
from .resident import ArmFailed, Resident
from .stats import block_stat, launch_effect


@dataclass
class ArmRun:
    """What one arm did in one launch; `status` is ok, or how it failed. Samples are ns per iteration."""

    name: str
    same: str
    status: str = "ok"
    reason: str | None = None
    k: int | None = None
    blocks: list[list[int]] = field(default_factory=list)
    # With every block: steal, PSI, load, switches; of streams, inferences in a second.
    notes: list[dict[str, float]] = field(default_factory=list)
    # load_ms, import_ms, first_ms, version, shapes, sqnr_db.
    opened: dict[str, Any] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    # Memory of GPUs that its process held, by their names; see `gpu.Meter`.
    gpu_bytes: dict[str, int] = field(default_factory=dict)
    placement: dict[str, Any] | None = None
    cost_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all its rounds were measured."""
        return self.status == "ok"

    def joined(self, later: ArmRun) -> ArmRun:
        """This and a later turn of the same arm as one run."""
        both = replace(later, blocks=self.blocks + later.blocks, notes=self.notes + later.notes)
        both.cost_s += self.cost_s
        both.peak_rss_bytes = max(self.peak_rss_bytes or 0, later.peak_rss_bytes or 0) or None
        both.gpu_bytes = {name: max(n, self.gpu_bytes.get(name, 0)) for name, n in later.gpu_bytes.items()}
        return both

    def fail(self, failed: ArmFailed) -> None:
        """Write down how it failed."""
        self.status, self.reason = failed.status, failed.reason


@dataclass
class Launch:
    """One launch of a session; block i of every arm that is ok belongs to round i."""

    index: int
    seed: str
    order: list[list[str]]
    arms: dict[str, ArmRun]
    started: float
    seconds: float = 0.0
    alternating: bool = False  # there was no room for all workers at once: see `run_alternating`

    @property
    def rounds(self) -> int:
        """How many blocks each arm had."""
        return max((len(run.blocks) for run in self.arms.values()), default=0)

    def effect(self, a: str, b: str, stat: str) -> float | None:
        """Log of b over a, or None where one of them did not produce."""
        one, other = self.arms.get(a), self.arms.get(b)
        if one is None or other is None or not one.ok or not other.ok:
            return None
        return launch_effect(one.blocks, other.blocks, stat)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, raw samples and all."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Launch:
        """The inverse of `to_dict`."""
        return cls(**{**data, "arms": {name: ArmRun(**run) for name, run in data["arms"].items()}})


class OpenArm:
    """An arm with its worker, opened, checked and warm; or failed, which `run.status` tells."""

    def __init__(
        self, arm: Arm, plan: Plan, log: Path, counts: MutableMapping[str, int], cores: Sequence[int] = ()
    ) -> None:
        self.arm, self.plan = arm, plan
        self.cores = cores or facts.cores_given()
        self.run = ArmRun(arm.name, arm.same)
        self.worker: Resident | None = None
        start = time.monotonic()
        try:
            self.worker = Resident(log, arm.interpreter)
            self._open(counts)
        except ArmFailed as failed:
            self._give_up(failed)
        except BaseException:
            self.close()
            raise
        self.run.cost_s += time.monotonic() - start

    def _open(self, counts: MutableMapping[str, int]) -> None:
        arm, plan = self.arm, self.plan
        what = {"target": arm.target, "artifact": arm.artifact, "settings": dict(arm.settings)}
        # As many cores as it has threads, the same for all arms: two cores may differ more than two models.
        threads = int(arm.settings.get("threads", 1)) * (arm.streams or 1)
        limits = {"cores": list(self.cores[:threads]), **arm.limits}
        self.ask("restrict", plan.open_timeout_s, **limits)
        opened = self.ask("open", plan.open_timeout_s, **what)
        check = {"inputs": arm.inputs, "reference": arm.reference, "bar_db": arm.bar_db}
        first = self.ask("first", plan.open_timeout_s, **check)
        self.run.opened = {key: opened[key] for key in ("load_ms", "import_ms", "version")}
        self.run.opened |= {key: first[key] for key in ("first_ms", "shapes", "sqnr_db")}
        if first["mismatch"]:
            raise ArmFailed("mismatch", first["mismatch"])
        warm = self.ask("warm", plan.open_timeout_s, iterations=plan.warm_iterations, seconds=plan.warm_s)
        self.run.opened["warm_iterations"] = warm["iterations"]
        # The lower quartile, so that a disturbed warm-up doesn't make blocks shorter than asked.
        usual = block_stat(warm["samples_ns"][len(warm["samples_ns"]) // 2 :], "lower_quartile")
        self.run.k = counts.setdefault(arm.same, plan.iterations(usual / 1e6))
        self.cold = int(plan.cold_ms * 1e6 / usual)
        self.timeout_s = max(plan.block_timeout_s, 100 * self.run.k * usual / 1e9)
        if arm.streams:
            self._open_streams(arm.streams)

    def _open_streams(self, count: int) -> None:
        """A block of them lasts for a time, not for a number of inferences: long enough for a few of each stream."""
        warm = self.ask("streams", self.plan.open_timeout_s, count=count, seconds=self.plan.warm_s)
        usual_s = block_stat(warm["samples_ns"]) / 1e9
        self.load_s = max(self.plan.streams_s, 5 * usual_s)
        self.timeout_s = max(self.plan.block_timeout_s, 100 * self.load_s)

    def ask(self, op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """See `Resident.ask`."""
        if self.worker is None:
            raise ArmFailed("error", "its worker is gone")
        return self.worker.ask(op, timeout_s, **arguments)

    def block(self) -> None:
        """Time one block; a failure is written into `run`."""
        start, before = time.monotonic(), facts.snapshot()
        try:
            if self.arm.streams:
                answer = self.ask("load", self.timeout_s, seconds=self.load_s)
            else:
                answer = self.ask("block", self.timeout_s, k=self.run.k, cold=self.cold)
        except ArmFailed as failed:
            self._give_up(failed)
            return
        self.run.blocks.append(answer.pop("samples_ns"))
        self.run.notes.append(facts.disturbance(before, facts.snapshot()) | answer)
        self.run.cost_s += time.monotonic() - start

    def finish(self, placement: bool) -> None:
        """Ask for what is known at the end; the placement last, since it may open a second session."""
        try:
            stats = self.ask("stats", self.plan.open_timeout_s)
            self.run.peak_rss_bytes, self.run.gpu_bytes = stats["peak_rss_bytes"], stats["gpu_bytes"]
            if placement:
                self.run.placement = self.ask("placement", self.plan.open_timeout_s)
        except ArmFailed as failed:
            self._give_up(failed)

    def fresh_run(self) -> ArmRun:
        """Begin another launch with the same worker."""
        was = self.run
        self.run = ArmRun(was.name, was.same, was.status, was.reason, was.k, opened=was.opened)
        return self.run

    def _give_up(self, failed: ArmFailed) -> None:
        self.run.fail(failed)
        self.close()

    def close(self) -> None:
        """End the worker; safe to call twice."""
        if self.worker:
            self.worker.close()
            self.worker = None


@dataclass(frozen=True)
class Setting:
    """What a launch needs beside its arms.

    Attributes:
        index: of the launch in its session; it turns the cores, and with `seed` sets the order.
        workdir: takes the workers' logs.
        counts: k by `Arm.same`; filled where missing, so that k is set once per session.
        place: ids (`Arm.same`) of the arms that are asked at the end what really ran; a duplicate isn't.
    """

    plan: Plan
    index: int
    seed: int
    workdir: Path
    counts: MutableMapping[str, int]
    place: Collection[str] = ()

    @contextmanager
    def launch(self, arms: Sequence[Arm], alternating: bool = False) -> Iterator[tuple[Launch, random.Random]]:
        """An empty launch and its dice; at the end its arms are put in the order of `arms`, and its time is told."""
        launch = Launch(self.index, f"{self.seed}/{self.index}", [], {}, time.time(), alternating=alternating)
        start = time.monotonic()
        yield launch, random.Random(launch.seed)
        launch.arms = {arm.name: launch.arms[arm.name] for arm in arms}
        launch.seconds = time.monotonic() - start

    def open(self, arm: Arm, log: str, cores: Sequence[int]) -> OpenArm:
        """The arm with its worker."""
        return OpenArm(arm, self.plan, self.workdir / f"{self.index:03d}-{log}.log", self.counts, cores)


def run_launch(arms: Sequence[Arm], how: Setting, kept: Mapping[str, OpenArm] | None = None) -> Launch:
    """One launch of `arms`, all of them in memory.

    Args:
        kept: arms by name whose workers are already there and stay: a search's resident reference.

    Raises:
        NoRoom: all workers at once would take more memory than there is; nothing was timed. Not beside kept arms.
    """
    kept = kept or {}
    cores = () if kept else turned(how.index)
    opened: dict[str, OpenArm] = {}
    with how.launch(arms) as (launch, rng):
        try:
            for arm in rng.sample(list(arms), len(arms)):  # so that no arm is always the first to be opened
                if arm.name in kept:
                    opened[arm.name] = kept[arm.name]
                    kept[arm.name].fresh_run()
                else:
                    opened[arm.name] = how.open(arm, str(len(opened)), cores)
                    if not kept:
                        _check_room(opened, len(arms) - len(opened))
            able = [arm.name for arm in arms if opened[arm.name].run.ok]
            launch.order = orders(able, how.plan.split_rounds([_iterations(opened[name]) for name in able]), rng)
            for name in itertools.chain.from_iterable(launch.order):
                if opened[name].run.ok:
                    opened[name].block()
            todo = set(how.place)
            for arm in arms:
                if opened[arm.name].run.ok:
                    opened[arm.name].finish(arm.same in todo)
                    todo.discard(arm.same)
        finally:
            for name, each in opened.items():
                if name not in kept:
                    each.close()
        launch.arms = {name: each.run for name, each in opened.items()}
    return launch


def _iterations(opened: OpenArm) -> int:
    """Of a block; one of streams lasts for a time and isn't split."""
    return 1 if opened.arm.streams else opened.run.k or 1


def turned(index: int) -> list[int]:
    """The cores given to us, beginning with another one in each launch, so that a session speaks for all of them."""
    cores = facts.cores_given()
    first = index % len(cores)
    return cores[first:] + cores[:first]


class NoRoom(Exception):
    """The workers of a launch don't fit into memory together."""


def _check_room(opened: Mapping[str, OpenArm], left: int) -> None:
    """Whether so many more fit, as large as the largest that is open: that is known only once they are."""
    import psutil

    largest = 0
    for each in opened.values():
        if each.worker and left:
            with suppress(psutil.Error):
                largest = max(largest, psutil.Process(each.worker.pid).memory_info().rss)
    if left * largest > facts.memory_free_bytes():
        raise NoRoom


def run_alternating(arms: Sequence[Arm], how: Setting) -> Launch:
    """A launch whose arms are in memory one at a time: A B B A, half of the rounds at each turn.

    Round i of one arm is held against round i of another though they don't stand side by side; going there and back
    cancels a drift of the machine, not a disturbance of one turn.
    """
    rounds, todo = how.plan.rounds, set(how.place)
    with how.launch(arms, alternating=True) as (launch, rng):
        there = rng.sample(list(arms), len(arms))
        halves = [(there, rounds - rounds // 2), (there[::-1], rounds // 2)]
        turns = [half for half in halves if half[1]]
        for turn, share in turns:
            launch.order.append([arm.name for arm in turn])
            for arm in turn:
                before = launch.arms.get(arm.name)
                if before and not before.ok:
                    continue
                opened = how.open(arm, f"{len(launch.order)}-{len(launch.arms)}", turned(how.index))
                run = _turn(opened, share, turn is turns[-1][0], arm.same in todo)
                todo -= {arm.same} if run.placement else set()
                launch.arms[arm.name] = before.joined(run) if before else run
    return launch


def _turn(opened: OpenArm, rounds: int, last: bool, placement: bool) -> ArmRun:
    """So many rounds of one arm alone; in its last turn it is asked for what is known at the end."""
    try:
        for _ in range(rounds):
            if opened.run.ok:
                opened.block()
        if last and opened.run.ok:
            opened.finish(placement)
    finally:
        opened.close()
    return opened.run


def orders(names: Sequence[str], rounds: int, rng: random.Random) -> list[list[str]]:
    """Random orders in which every name stands at every place equally often, as far as the rounds go.

    Up to three arms, all permutations in turn, which also balances who runs after whom; above, random Latin
    squares.
    """
    found: list[list[str]] = []
    while names and len(found) < rounds:
        if len(names) <= 3:
            square = [list(p) for p in itertools.permutations(names)]
        else:
            mixed = rng.sample(list(names), len(names))
            square = [mixed[i:] + mixed[:i] for i in range(len(mixed))]
        rng.shuffle(square)
        found += square
    return found[:rounds]
