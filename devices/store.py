"""The store of facts: every measurement once, with its raw samples; SQLite by default, PostgreSQL by URL.

A row is one arm of one launch. Its key says what was measured, how and where, so writing it again changes
nothing, and a killed run loses only the launch that was under way.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..core.errors import MissingPart, NotWritten, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = 1
metadata = sa.MetaData()

meta = sa.Table("meta", metadata, sa.Column("key", sa.String(64), primary_key=True), sa.Column("value", sa.Text))

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("artifact", sa.String(64), nullable=False),  # content id
    sa.Column("settings", sa.String(64), nullable=False),  # content id of the runtime's settings
    sa.Column("shapes", sa.String(64), nullable=False),  # content id of the input shapes and dtypes
    sa.Column("fingerprint", sa.String(64), nullable=False),  # device with runtime
    sa.Column("protocol", sa.Integer, nullable=False),
    sa.Column("session", sa.String(64), nullable=False),  # one comparison, bench or search
    sa.Column("launch", sa.Integer, nullable=False),
    sa.Column("arm", sa.String(128), nullable=False),
    sa.Column("status", sa.String(32), nullable=False),  # ok, or how the arm's worker ended
    sa.Column("reason", sa.Text),
    sa.Column("cost_s", sa.Float, nullable=False),
    sa.Column("created", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("facts", sa.Text, nullable=False),  # JSON: device, arm, order of rounds, seed
    sa.Column("samples", sa.LargeBinary, nullable=False),  # compressed JSON of the whole arm run
    sa.UniqueConstraint(
        "artifact",
        "settings",
        "shapes",
        "fingerprint",
        "protocol",
        "session",
        "launch",
        "arm",
        name="one_measurement",
    ),
)
KEY = ("artifact", "settings", "shapes", "fingerprint", "protocol", "session", "launch", "arm")


def pack(data: Any) -> bytes:
    """JSON, compressed: lists of nanoseconds shrink to a third."""
    return zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 6)


def unpack(blob: bytes) -> Any:
    """The inverse of `pack`."""
    return json.loads(zlib.decompress(blob))


class Store:
    """A store at a SQLAlchemy URL, or at a path (then SQLite).

    Raises:
        UsageError: the file is no store of ours, or of a newer version.
        NotWritten: it can't be opened for writing.
        MissingPart: the database's driver isn't installed.
    """

    def __init__(self, where: str | Path) -> None:
        self.url = str(where) if "://" in str(where) else f"sqlite:///{Path(where).absolute()}"
        try:
            self.engine = sa.create_engine(self.url)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", _prepare_sqlite)
            self._set_up()
        except (sa.exc.NoSuchModuleError, sa.exc.ArgumentError) as error:
            raise UsageError(f"open the store {where}", str(error), "give a path, or a URL like sqlite:///f") from error
        except ImportError as error:
            asked, todo = f"open the store {where}", "install the database's driver, such as psycopg"
            raise MissingPart(asked, str(error), todo) from error
        except sa.exc.DatabaseError as error:
            raise NotWritten(f"open the store {where}", str(error.orig), "check the path and its rights") from error

    def add(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Insert the measurements of one launch, all or none, unless they are there; their ids either way.

        A row holds the columns of `KEY`, `status`, `reason` and `cost_s`, and as plain data `facts` and
        `samples`.
        """
        ids = []
        with self.begin() as connection:
            for row in rows:
                values = {"reason": None, "created": time.time(), **row}
                values |= {"facts": json.dumps(row["facts"]), "samples": pack(row["samples"])}
                same = sa.and_(*(measurements.c[name] == values[name] for name in KEY))
                connection.execute(insert_once(self.engine, measurements).values(**values))
                ids.append(int(connection.execute(sa.select(measurements.c.id).where(same)).scalar_one()))
        return ids

    def find(self, **where: Any) -> list[dict[str, Any]]:
        """Measurements whose columns equal `where`, oldest first, with facts and samples unpacked."""
        query = sa.select(measurements).order_by(measurements.c.id)
        for name, value in where.items():
            query = query.where(measurements.c[name] == value)
        return self._rows(query)

    def sessions(self, name: str) -> list[dict[str, Any]]:
        """Measurements of the session of that name and of its parts, ``NAME@HOST``; as `find`."""
        part = measurements.c.session.startswith(f"{name}@", autoescape=True)
        query = sa.select(measurements).where(sa.or_(measurements.c.session == name, part))
        return self._rows(query.order_by(measurements.c.id))

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self.begin() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]
        return [row | {"facts": json.loads(row["facts"]), "samples": unpack(row["samples"])} for row in rows]

    def next_launch(self, session: str) -> int:
        """The number that the next launch of a session gets: one after the last whole one."""
        query = sa.select(sa.func.max(measurements.c.launch)).where(measurements.c.session == session)
        with self.begin() as connection:
            last = connection.execute(query).scalar()
        return 0 if last is None else int(last) + 1

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A connection in one transaction, for the floors above that keep tables of their own beside ours."""
        with self.engine.begin() as connection:
            yield connection

    def create(self, tables: Sequence[sa.Table]) -> None:
        """Make the tables of a floor above, where they are missing."""
        if tables:
            tables[0].metadata.create_all(self.engine, tables=list(tables))

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    def _set_up(self) -> None:
        metadata.create_all(self.engine)
        with self.begin() as connection:
            version = {"key": "schema", "value": str(SCHEMA_VERSION)}
            connection.execute(insert_once(self.engine, meta).values(**version))
            found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar_one()
        if found != str(SCHEMA_VERSION):
            asked = f"open the store {self.url}"
            raise UsageError(
                asked, f"schema version {found}, known: {SCHEMA_VERSION}", "use the seatrial that wrote it"
            )


def insert_once(engine: sa.Engine, table: sa.Table) -> Any:
    """An INSERT that does nothing where the row is there already."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    # A killed writer leaves a whole database, and readers don't wait for writers.
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
