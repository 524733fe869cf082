"""What became of each model of a study, and who works on which just now, in tables of the facts store."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..core.errors import NotWritten
from ..devices.store import Store, batches, insert_once, metadata
from .candidate import Candidate
from .trials import AGAIN

tried = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(64), nullable=False),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("data", sa.Text, nullable=False),  # JSON of a Tried
    sa.UniqueConstraint("study", "model", name="one_model"),
)
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(128), nullable=False),  # `HERE`, process, when that began
    sa.Column("until", sa.Float, nullable=False),  # seconds since the epoch, by the database's clock where it has one
    sa.Column("data", sa.Text, nullable=False),  # JSON of its values
)
TUNED, UNTRAINED = "-tuned", "-untrained"
"""Behind a model's key: what it inherited, trained a little further; the same graph before training, for its times."""
REFUSED = "refused"
"""Kind of the failure of a model that can't keep to a bound, whatever its weights, and wasn't trained."""
ASKED = "asked: "
"""In the reason of such a failure, before the bound."""
LEASE_S = 60.0
"""A claim from another machine that nobody renewed for so long is free: its owner is dead, or its machine is."""


@dataclass(frozen=True)
class Tried:
    """One model of a study, evaluated, or why not.

    Attributes:
        model: its key: models that build the same graph have the same.
        values: of the first candidate with this key.
        status: ``ok`` or ``failed``.
        reason: why it failed.
        kind: of the failure: ``error``, ``timeout``, ``oom``, ``signal``, ``diverged``, ``missing``, ``refused``.
        macs: multiplications with an addition; None where they aren't known before.
        parameters: how many.
        accuracy: top-1 of the source on "valid"; None for a model of a pool.
        trained: ``inherited``, ``alone``, ``finetuned``, ``given`` or None where it wasn't.
        seconds: of its training.
        times: id of each timed deployment → median ms against the study's reference.
    """

    model: str
    values: dict[str, Any]
    status: str
    reason: str | None = None
    kind: str | None = None
    macs: int | None = None
    parameters: int | None = None
    accuracy: float | None = None
    trained: str | None = None
    seconds: float = 0.0
    times: dict[str, float] = field(default_factory=dict)


def earlier(candidate: Candidate) -> list[str]:
    """Ids of the same deployment before its model was trained further, and before it was trained: of the same graph."""
    model = candidate.model
    if not model or model.endswith(UNTRAINED):
        return []
    key = model.removesuffix(TUNED)
    models = [key + UNTRAINED] if key == model else [key, key + UNTRAINED]
    return [replace(candidate, model=each).id for each in models]


class Roster:
    """The models of one study in a store."""

    def __init__(self, store: Store, study: str) -> None:
        self.store, self.study = store, study
        self.owner = _owner(os.getpid())
        self._seen: set[tuple[int, str]] = set()
        store.create([tried, claims])

    def add(self, one: Tried) -> None:
        """Keep what became of a model; what is there stays."""
        self.store.put(tried, [{"study": self.study, "model": one.model, "data": json.dumps(asdict(one))}])

    def put(self, one: Tried) -> None:
        """Keep what became of a model in place of what is there."""
        row = sa.and_(tried.c.study == self.study, tried.c.model == one.model)
        self.store.write(sa.update(tried).where(row).values(data=json.dumps(asdict(one))))

    def get(self, model: str) -> Tried | None:
        """What became of a model; None where nothing did yet."""
        query = sa.select(tried.c.data).where(tried.c.study == self.study, tried.c.model == model)
        found = self.store.ask(query)
        return Tried(**json.loads(found[0][0])) if found else None

    def fresh(self) -> list[Tried]:
        """What came since the last call, from this process and from others, oldest first."""
        # Not by the highest number so far: a database gives numbers before rows can be seen, in another order.
        query = sa.select(tried.c.id, tried.c.model).where(tried.c.study == self.study).order_by(tried.c.id)
        new = [(id, model) for id, model in self.store.ask(query) if (id, model) not in self._seen]
        self._seen |= set(new)
        found: list[Tried] = []
        for some in batches([id for id, _ in new]):
            query = sa.select(tried.c.data).where(tried.c.id.in_(some)).order_by(tried.c.id)
            found += [Tried(**json.loads(data)) for (data,) in self.store.ask(query)]
        return found

    def all(self) -> dict[str, Tried]:
        """All models by key, oldest first."""
        query = sa.select(tried.c.data).where(tried.c.study == self.study).order_by(tried.c.id)
        return {one.model: one for (data,) in self.store.ask(query) for one in [Tried(**json.loads(data))]}

    def forget_failed(self, bounds: Collection[str] = ()) -> list[str]:
        """Drop the failures that another run may not have: for want of time, memory or a part; for bounds that went.

        Args:
            bounds: in words, those that hold.

        Returns:
            Their models.
        """
        failed = [one for one in self.all().values() if one.status == "failed"]
        refused = [one for one in failed if one.kind == REFUSED]
        again = [one.model for one in failed if one.kind in AGAIN]
        again += [one.model for one in refused if str(one.reason).partition(ASKED)[2] not in bounds]
        for some in batches(again):
            self.store.write(sa.delete(tried).where(tried.c.study == self.study, tried.c.model.in_(some)))
        return again

    def others(self) -> dict[str, dict[str, Any]]:
        """Values of the models that other processes work on just now, by key."""
        query = sa.select(claims.c.model, claims.c.owner, claims.c.data)
        query = query.where(claims.c.study == self.study, claims.c.owner != self.owner)
        found = self.store.ask(query.where(self._held))
        return {model: json.loads(data) for model, owner, data in found if _alive(owner) is not False}

    @contextmanager
    def claimed(self, model: str, values: dict[str, Any]) -> Iterator[bool]:
        """Whether the model is ours to evaluate until the block ends; renewed meanwhile, by a thread."""
        if not self._claim(model, values):
            yield False
            return
        done = threading.Event()

        def renew() -> None:
            while not done.wait(LEASE_S / 4):
                with suppress(NotWritten):  # the next one may find the database again; the work itself will say it
                    self.store.write(sa.update(claims).where(self._mine(model)).values(until=self._now + LEASE_S))

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield True
        finally:
            done.set()
            thread.join()
            self.store.write(sa.delete(claims).where(self._mine(model)))

    def _mine(self, model: str) -> Any:
        return sa.and_(claims.c.study == self.study, claims.c.model == model, claims.c.owner == self.owner)

    @property
    def _now(self) -> Any:
        """Of the database's clock: those of several machines may differ by more than a lease."""
        if self.store.engine.dialect.name == "postgresql":
            return sa.extract("epoch", sa.func.clock_timestamp())
        return time.time()

    @property
    def _held(self) -> Any:
        """Claims that hold: of a living process of this machine whatever the clock says, of others until they end."""
        return sa.or_(claims.c.until > self._now, claims.c.owner.startswith(f"{HERE}:", autoescape=True))

    def _claim(self, model: str, values: dict[str, Any]) -> bool:
        this = sa.and_(claims.c.study == self.study, claims.c.model == model)
        row = {"study": self.study, "model": model, "owner": self.owner, "data": json.dumps(values)}

        def take(connection: sa.Connection) -> bool:
            connection.execute(insert_once(self.store.engine, claims).values(**row, until=self._now + LEASE_S))
            found = connection.execute(sa.select(claims.c.owner, self._held).where(this)).first()
            if found is None:
                return take(connection)  # given back between the two statements
            owner, held = found
            if owner != self.owner and (not held or _alive(owner) is False):
                # Only as long as it is that owner's: another process may see the same and take it first.
                free = sa.and_(this, claims.c.owner == owner)
                connection.execute(sa.update(claims).where(free).values(**row, until=self._now + LEASE_S))
                owner = connection.execute(sa.select(claims.c.owner).where(this)).scalar_one()
            return bool(owner == self.owner)

        return self.store.do(take)


def _here() -> str:
    """This machine since its start, and this container on it: where a process's number means that process."""
    words = [socket.gethostname()[:63]]
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
            words += [boot, str(os.stat("/proc/self/ns/pid").st_ino)]
    return "/".join(words)


HERE = _here()


def _owner(pid: int) -> str:
    """A process of this machine; the same number used again is another."""
    return f"{HERE}:{pid}:{_begun(pid)}"


def _begun(pid: int) -> str | None:
    """When a process began; None where it has ended, also where its parent hasn't asked how."""
    import psutil

    if sys.platform != "linux":
        with suppress(psutil.Error):
            return f"{psutil.Process(pid).create_time():.2f}"
        return None
    try:  # in ticks since the machine's start: the wall clock may be set anew
        state, *words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else words[18]


def _alive(owner: str) -> bool | None:
    """Whether a claim's owner still runs; None where it is on another machine."""
    here, _, rest = owner.partition(":")
    if here != HERE:
        return None
    pid, _, begun = rest.partition(":")
    return _begun(int(pid)) == begun
