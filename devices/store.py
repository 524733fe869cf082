"""The store of facts: every measurement once, with its raw samples; SQLite by default, PostgreSQL by URL.

A row is one arm of one launch. Its key says what was measured, how and where, so writing it again changes
nothing, and a killed run loses only the launch that was under way. A database that goes away is waited for.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from ..core.errors import MissingPart, NotWritten, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
SCHEMA_VERSION = 1
BUSY_S = 30.0
"""So long another process may hold the file of an SQLite store."""
GONE_S = 120.0
"""So long a database that was there may be away."""
AT_ONCE = 500
"""Rows that are written or asked for by one statement."""
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
of_session = sa.Index("measurements_of_session", measurements.c.session, measurements.c.launch, measurements.c.arm)
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
        file = None if "://" in str(where) else str(Path(where).absolute())
        self.url = f"sqlite:///{file}" if file else str(where)
        try:
            # Not by the text: in a URL a path's "?" and "%" mean something else.
            self.engine = sa.create_engine(sa.URL.create("sqlite", database=file) if file else self.url)
            if self.engine.dialect.name == "sqlite":
                sa.event.listen(self.engine, "connect", _prepare_sqlite)
            self._set_up()
        except (sa.exc.NoSuchModuleError, sa.exc.ArgumentError) as error:
            raise UsageError(f"open the store {where}", str(error), "give a path, or a URL like sqlite:///f") from error
        except ImportError as error:
            asked, todo = f"open the store {where}", "install the database's driver, such as psycopg"
            raise MissingPart(asked, str(error), todo) from error
        except sa.exc.DatabaseError as error:
            todo = "check the path and its rights" if "sqlite" in self.url else "check the URL, and that it runs"
            raise NotWritten(f"open the store {self.shown}", _first_line(error), todo) from error

    def add(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Insert the measurements of one launch, all or none, unless they are there; their ids either way.

        A row holds the columns of `KEY`, `status`, `reason` and `cost_s`, and as plain data `facts` and
        `samples`.
        """
        packed = [
            {"reason": None, "created": time.time(), **row}
            | {"facts": json.dumps(row["facts"]), "samples": pack(row["samples"])}
            for row in rows
        ]

        def write(connection: sa.Connection) -> list[int]:
            ids = []
            for values in packed:
                same = sa.and_(*(measurements.c[name] == values[name] for name in KEY))
                connection.execute(insert_once(self.engine, measurements).values(**values))
                ids.append(int(connection.execute(sa.select(measurements.c.id).where(same)).scalar_one()))
            return ids

        return self.do(write)

    def find(self, **where: Any) -> list[dict[str, Any]]:
        """Measurements whose columns equal `where`, oldest first, with facts and samples unpacked.

        Where a list is given, a column is one of its values.
        """
        query = sa.select(measurements).order_by(measurements.c.id)
        for name, value in where.items():
            column = measurements.c[name]
            query = query.where(column.in_(value) if isinstance(value, list) else column == value)
        return self._rows(query)

    def sessions(self, name: str) -> list[dict[str, Any]]:
        """Measurements of the session of that name and of its parts, ``NAME@HOST``; as `find`."""
        return self._rows(sa.select(measurements).where(in_session(name)).order_by(measurements.c.id))

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        rows = [dict(row._mapping) for row in self.ask(query)]
        return [row | {"facts": json.loads(row["facts"]), "samples": unpack(row["samples"])} for row in rows]

    def next_launch(self, session: str) -> int:
        """The number that the next launch of a session gets: one after the last whole one."""
        query = sa.select(sa.func.max(measurements.c.launch)).where(measurements.c.session == session)
        last = self.ask(query)[0][0]
        return 0 if last is None else int(last) + 1

    def ask(self, query: sa.Select[Any]) -> list[Any]:
        """The rows of a query."""
        return self.do(lambda connection: list(connection.execute(query)))

    def write(self, *statements: Any) -> None:
        """Execute statements, all or none; they are such that twice is as good as once."""
        self.do(lambda connection: [connection.execute(statement) for statement in statements])

    def put(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, all or none, unless they are there."""
        if rows:
            self.do(lambda connection: connection.execute(insert_once(self.engine, table), list(rows)))

    def do(self, work: Callable[[sa.Connection], T]) -> T:
        """Do it in one transaction; again, where the database went away meanwhile: twice must be as good as once.

        Raises:
            NotWritten: the database stays away, is locked, or its disk is full.
        """
        end = time.monotonic() + GONE_S
        pause = 0.05
        while True:
            try:
                with self.begin() as connection:
                    return work(connection)
            except NotWritten as error:
                if not _is_gone(error.__cause__) or time.monotonic() > end:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A connection in one transaction, for the floors above that keep tables of their own beside ours.

        Raises:
            NotWritten: see `do`; here nothing is waited for but another process's lock.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            raise NotWritten(f"the facts in {self.shown}", _first_line(error), _todo(error)) from error

    def create(self, tables: Sequence[sa.Table]) -> None:
        """Make the tables of a floor above, where they are missing."""
        if tables:
            self._create(lambda: tables[0].metadata.create_all(self.engine, tables=list(tables)))

    def _create(self, create: Callable[[], None]) -> None:
        """Again, where another process made the same at the same moment."""
        for left in (2, 1, 0):
            try:
                create()
                break
            except sa.exc.DatabaseError as error:
                if not left or not any(word in str(error.orig) for word in ("already exists", "duplicate key")):
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @property
    def shown(self) -> str:
        """Where it is, for people: without a password."""
        url = self.engine.url
        return str(url.database) if self.engine.dialect.name == "sqlite" else url.render_as_string()

    def _set_up(self) -> None:
        self._create(lambda: metadata.create_all(self.engine))
        self._create(lambda: of_session.create(self.engine, checkfirst=True))  # older stores have none
        with self.engine.begin() as connection:
            version = {"key": "schema", "value": str(SCHEMA_VERSION)}
            connection.execute(insert_once(self.engine, meta).values(**version))
            found = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar_one()
        if found != str(SCHEMA_VERSION):
            asked = f"open the store {self.shown}"
            raise UsageError(
                asked, f"schema version {found}, known: {SCHEMA_VERSION}", "use the seatrial that wrote it"
            )


def in_session(name: str, table: sa.Table = measurements) -> sa.ColumnElement[bool]:
    """Rows of the session of that name and of its parts, ``NAME@HOST``."""
    part = table.c.session.startswith(f"{name}@", autoescape=True)
    return sa.or_(table.c.session == name, part)


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """So many that one statement takes them."""
    return (items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE))


def _is_gone(error: BaseException | None) -> bool:
    """Whether a server ended the connection, or takes none just now: it may come back."""
    if not isinstance(error, sa.exc.DBAPIError) or type(error.orig).__module__.startswith("sqlite3"):
        return False
    state = getattr(error.orig, "sqlstate", None)
    # Classes of PostgreSQL's states: connection, shutdown or start, deadlock; none where there was no connection.
    return state is None or str(state).startswith(("08", "57P", "40"))


def _first_line(error: sa.exc.DBAPIError) -> str:
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def _todo(error: sa.exc.DBAPIError) -> str:
    text = str(error.orig)
    if "locked" in text:
        return f"another program held it for {BUSY_S:g} s: let it end, then run the same command again: it goes on"
    if "full" in text or "No space" in text:
        return "free some room, then run the same command again: it goes on"
    return "see to the database, then run the same command again: it goes on"


def insert_once(engine: sa.Engine, table: sa.Table) -> Any:
    """An INSERT that does nothing where the row is there already."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).on_conflict_do_nothing()


def _prepare_sqlite(connection: Any, record: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {BUSY_S * 1000:.0f}", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    # A killed writer leaves a whole database, and readers don't wait for writers. SQLite waits for no lock where
    # the mode of a new file changes: of two that open it at one moment, the second is refused at once.
    end = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
    cursor.close()
