"""A folder for one run's work in the user's cache: gone after success, only logs and reports left after failure."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import SeatrialError
from ..core.paths import cache_dir, writing

KEEP_DAYS = 7
_KEPT = {".txt", ".md"}


@contextmanager
def workspace(name: str) -> Iterator[Path]:
    """A fresh folder ``CACHE/runs/NAME-TIME-PID``."""
    runs = cache_dir() / "runs"
    folder = runs / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    with writing(f"the work folder {folder}"):
        folder.mkdir(parents=True)
    _forget_old(runs)
    try:
        yield folder
    except SeatrialError:
        _keep_logs(folder)
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
        if run.stat().st_mtime < oldest:
            shutil.rmtree(run, ignore_errors=True)
