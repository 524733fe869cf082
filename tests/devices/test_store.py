"""The store: every measurement once, whatever is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from seatrial.core.errors import MissingPart, NotWritten, UsageError
from seatrial.devices.store import Store, insert_once, measurements


def row(launch: int = 0, arm: str = "a") -> dict[str, object]:
    key = dict.fromkeys(("artifact", "settings", "shapes", "fingerprint", "session"), "x")
    rest = {"protocol": 1, "launch": launch, "arm": arm, "status": "ok", "cost_s": 0.5}
    return {**key, **rest, "facts": {"cpu": "c"}, "samples": {"blocks": [[1, 2], [3]]}}


def test_what_was_written_is_read_again_and_twice_is_once(tmp_path):
    store = Store(tmp_path / "facts.db")
    ids = store.add([row(0, "a"), row(0, "b")])
    assert store.add([row(0, "a"), row(0, "b")]) == ids
    found = store.find(session="x")
    assert [r["id"] for r in found] == ids
    assert found[0]["samples"] == {"blocks": [[1, 2], [3]]}
    assert found[0]["facts"] == {"cpu": "c"}
    assert store.find(arm="c") == []
    assert (store.next_launch("x"), store.next_launch("y")) == (1, 0)


def test_a_launch_is_stored_whole_or_not_at_all(tmp_path):
    store = Store(tmp_path / "facts.db")
    bad = row(0, "b") | {"status": None}
    with pytest.raises(sa.exc.IntegrityError):
        store.add([row(0, "a"), bad])
    assert store.find() == []


def test_several_writers_wait_for_each_other(tmp_path):
    Store(tmp_path / "facts.db")

    def write(i: int) -> None:
        store = Store(tmp_path / "facts.db")
        for launch in range(10):
            store.add([row(launch, f"arm {i}"), row(launch, "all the same")])
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(Store(tmp_path / "facts.db").find()) == 50


def test_several_make_one_new_store_at_one_moment(tmp_path):
    for turn in range(25):
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(Store, [tmp_path / f"{turn}.sqlite"] * 4))
        for store in made:
            store.close()


def test_a_killed_writer_loses_nothing_that_was_finished(tmp_path):
    code = (
        "import sys\nfrom seatrial.devices.store import Store\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_store import row\n"
        f"store = Store({str(tmp_path / 'facts.db')!r})\n"
        "for i in range(100000):\n    store.add([row(i, 'a'), row(i, 'b')])\n    print(i, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 20:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    told = [20, *(int(line) for line in writer.stdout.read().splitlines())]
    writer.wait()
    found = Store(tmp_path / "facts.db").find()
    assert len(found) % 2 == 0
    assert len(found) // 2 in (told[-1] + 1, told[-1] + 2)


def test_it_lies_in_wal_mode_at_the_path_that_was_given(tmp_path):
    Store(tmp_path / "facts.db").add([row()])
    with sqlite3.connect(tmp_path / "facts.db") as raw:
        assert raw.execute("pragma journal_mode").fetchone() == ("wal",)
    assert len(Store(f"sqlite:///{tmp_path / 'facts.db'}").find()) == 1


@pytest.mark.parametrize("name", ["what?", "a%20b", "50 %"])
def test_a_path_is_no_url(tmp_path, name):
    Store(tmp_path / name).add([row()])
    assert name in {path.name for path in tmp_path.iterdir()}
    with sqlite3.connect(tmp_path / name) as raw:
        assert raw.execute("select count(*) from measurements").fetchone() == (1,)


def test_floors_above_keep_their_tables_beside_and_refer_to_ours(tmp_path):
    own = sa.MetaData()
    trials = sa.Table("rooms_above", own, sa.Column("id", sa.Integer, primary_key=True), sa.Column("m", sa.Integer))
    store = Store(tmp_path / "facts.db")
    store.create([trials])
    store.create([trials])
    with store.begin() as connection:
        connection.execute(insert_once(store.engine, trials).values(id=1, m=store.add([row()])[0]))
    with store.begin() as connection:
        joined = sa.select(measurements.c.arm).join(trials, trials.c.m == measurements.c.id)
        assert connection.execute(joined).scalar_one() == "a"


def test_a_file_that_is_no_store_or_of_another_version_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database, and long enough to be sure of it" * 20)
    with pytest.raises(NotWritten):
        Store(tmp_path / "text")
    Store(tmp_path / "facts.db").close()
    with sqlite3.connect(tmp_path / "facts.db") as raw:
        raw.execute("update meta set value = '99'")
    with pytest.raises(UsageError, match="99"):
        Store(tmp_path / "facts.db")
    with pytest.raises(UsageError):
        Store("nosuchdatabase://x")
    with pytest.raises(MissingPart, match="driver"):
        Store("postgresql+pg8000://x")
    with pytest.raises(NotWritten):
        Store(tmp_path / "absent" / "facts.db")


def test_the_statements_are_postgresqls_too():
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    class Postgres:
        dialect = postgresql.dialect()

    statement = insert_once(Postgres(), measurements).values(arm="a")  # type: ignore[arg-type]
    assert "ON CONFLICT DO NOTHING" in str(statement.compile(dialect=Postgres.dialect))
    assert "BYTEA" in str(CreateTable(measurements).compile(dialect=Postgres.dialect))
