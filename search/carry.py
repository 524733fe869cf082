"""The facts of one study from one store into another: its folder holds them, wherever its workers kept them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from ..devices.store import AT_ONCE, Store, measurements, metadata
from .kept import objectives, scores
from .roster import tried
from .trials import trials

homes = sa.Table(
    "homes",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("mark", sa.String(64), nullable=False),  # of the folder, in a file there: it may be moved, or be mounted
    sa.Column("folder", sa.Text, nullable=False),  # where it was
)


def claim_home(store: Store, study: str, mark: str, folder: str) -> str | None:
    """Write down which folder a study's facts are of; where it is another one, which."""
    store.create([homes])
    store.put(homes, [{"study": study, "mark": mark, "folder": folder}])
    held, where = store.ask(sa.select(homes.c.mark, homes.c.folder).where(homes.c.study == study))[0]
    return None if held == mark else str(where)


def carry(source: Store, target: Store, study: str, newest: bool = False) -> None:
    """Copy a study's facts; what is there stays.

    Args:
        source: where from.
        target: where to.
        study: id of the search.
        newest: what the source says of candidates and models takes the place of what was there: failures of old that
            were tried again.
    """
    target.create([measurements, objectives, scores, tried, trials])
    for table in (trials, tried):
        rows = [row for some in _rows(source, table, table.c.study == study) for row in some]
        if newest:
            _replace(target, table, study, rows)
        else:
            target.put(table, rows)
    for table in (objectives, scores):
        for some in _rows(source, table, table.c.study == study):
            target.put(table, some)
    mine = measurements.c.session.startswith(f"{study}-", autoescape=True)
    if _count(source, mine) > _count(target, mine):
        for some in _rows(source, measurements, mine):
            target.put(measurements, some)


def _rows(store: Store, table: sa.Table, mine: Any) -> Iterator[list[Mapping[str, Any]]]:
    """All columns but the numbers that a store gives, some rows at a time, the oldest first."""
    columns = [column for column in table.c if column.name != "id"]
    place = list(table.primary_key)
    last: tuple[Any, ...] | None = None
    while True:
        query = sa.select(*columns, *(c.label(f"at_{i}") for i, c in enumerate(place))).where(mine)
        if last is not None:
            query = query.where(sa.tuple_(*place) > sa.tuple_(*last))
        found = store.ask(query.order_by(*place).limit(AT_ONCE))
        if not found:
            return
        yield [{column.name: getattr(row, column.name) for column in columns} for row in found]
        last = tuple(found[-1][len(columns) :])


def _replace(store: Store, table: sa.Table, study: str, rows: list[Mapping[str, Any]]) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(sa.delete(table).where(table.c.study == study))
        if rows:
            connection.execute(sa.insert(table), rows)

    store.do(work)


def _count(store: Store, mine: Any) -> int:
    return int(store.ask(sa.select(sa.func.count()).select_from(measurements).where(mine))[0][0])
