"""What became of each model of a study, and who works on which just now, in tables of the facts store."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from ..devices.store import Store, insert_once, metadata

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
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("until", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("data", sa.Text, nullable=False),  # JSON of its values
)
LEASE_S = 60.0
"""A claim that nobody renewed for so long is free again: its owner is dead, or its machine is."""


@dataclass(frozen=True)
class Tried:
    """One model of a study, evaluated, or why not.

    Attributes:
        model: its key: models that build the same graph have the same.
        values: of the first candidate with this key.
        status: ``ok`` or ``failed``.
        reason: why it failed.
        kind: of the failure: ``error``, ``timeout``, ``oom``, ``signal``, ``diverged``.
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


class Roster:
    """The models of one study in a store."""

    def __init__(self, store: Store, study: str) -> None:
        self.store, self.study = store, study
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{time.time():.0f}"
        store.create([tried, claims])

    def add(self, one: Tried) -> None:
        """Keep what became of a model; what is there stays."""
        row = {"study": self.study, "model": one.model, "data": json.dumps(asdict(one))}
        with self.store.begin() as connection:
            connection.execute(insert_once(self.store.engine, tried).values(**row))

    def since(self, last: int = 0) -> list[tuple[int, Tried]]:
        """What came after a row, oldest first, each with its row's number."""
        query = sa.select(tried.c.id, tried.c.data).where(tried.c.study == self.study, tried.c.id > last)
        with self.store.begin() as connection:
            return [(id, Tried(**json.loads(data))) for id, data in connection.execute(query.order_by(tried.c.id))]

    def all(self) -> dict[str, Tried]:
        """All models by key, oldest first."""
        return {one.model: one for _, one in self.since()}

    def forget_failed(self) -> None:
        """Drop the failures that another run may not have: for want of time or memory, or a kill."""
        again = [one.model for one in self.all().values() if one.kind in ("timeout", "oom", "signal")]
        gone = sa.and_(tried.c.study == self.study, tried.c.model.in_(again))
        with self.store.begin() as connection:
            connection.execute(sa.delete(tried).where(gone))

    def others(self) -> list[dict[str, Any]]:
        """Values of the models that other processes work on just now."""
        mine = sa.and_(claims.c.study == self.study, claims.c.owner != self.owner, claims.c.until > time.time())
        with self.store.begin() as connection:
            return [json.loads(data) for (data,) in connection.execute(sa.select(claims.c.data).where(mine))]

    @contextmanager
    def claimed(self, model: str, values: dict[str, Any]) -> Iterator[bool]:
        """Whether the model is ours to evaluate until the block ends; renewed meanwhile, by a thread."""
        if not self._claim(model, values):
            yield False
            return
        done = threading.Event()

        def renew() -> None:
            while not done.wait(LEASE_S / 4):
                self._renew(model)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield True
        finally:
            done.set()
            thread.join()
            with self.store.begin() as connection:
                connection.execute(sa.delete(claims).where(self._mine(model)))

    def _mine(self, model: str) -> Any:
        return sa.and_(claims.c.study == self.study, claims.c.model == model, claims.c.owner == self.owner)

    def _claim(self, model: str, values: dict[str, Any]) -> bool:
        now = time.time()
        row = {"study": self.study, "model": model, "owner": self.owner, "until": now + LEASE_S}
        stale = sa.and_(claims.c.study == self.study, claims.c.model == model, claims.c.until < now)
        with self.store.begin() as connection:
            connection.execute(sa.delete(claims).where(stale))
            connection.execute(insert_once(self.store.engine, claims).values(**row, data=json.dumps(values)))
            return connection.execute(sa.select(claims.c.owner).where(self._mine(model))).first() is not None

    def _renew(self, model: str) -> None:
        try:
            with self.store.begin() as connection:
                connection.execute(sa.update(claims).where(self._mine(model)).values(until=time.time() + LEASE_S))
        except sa.exc.SQLAlchemyError:
            pass  # the next renewal may find the database again; the work itself will say it
