"""A folder for one run's work in the user's cache: gone after success, only logs and reports left after failure."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..core.errors import NotWritten, SeatrialError
from ..core.paths import MAKE_ROOM, NO_ROOM, cache_dir, writing

KEEP_DAYS = 7
_KEPT = {".txt", ".md"}


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A fresh folder ``CACHE/runs/NAME-TIME-...``."""
    runs = cache_dir() / "runs"
    with writing(f"a work folder in {runs}"):
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-", dir=runs))
    _forget_old(runs)
    try:
        yield folder
    except SeatrialError:
        _keep_logs(folder)
        raise
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error.errno in NO_ROOM:
            raise NotWritten(f"the work folder {folder}", error.strerror or str(error), MAKE_ROOM) from error
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _keep_logs(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.suffix not in _KEPT:
            path.unlink()


def _forget_old(runs: Path) -> None:
    """Delete what is older than a week: logs of failures, and work that a SIGKILL left behind."""
    oldest = time.time() - KEEP_DAYS * 86400
    for run in runs.iterdir():
        with suppress(OSError):  # another export may end, and remove its own, right now
            if run.stat().st_mtime < oldest:
                shutil.rmtree(run, ignore_errors=True)
