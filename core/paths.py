"""Where our own files live, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import NotWritten, UsageError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAKE_ROOM = "free some room, or let XDG_CACHE_HOME name a folder on a larger disk"


def cache_dir() -> Path:
    """The user's cache folder for us."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "seatrial"


@contextmanager
def writing(asked: str) -> Iterator[None]:
    """Turn the system's refusals to write into one clear error."""
    try:
        yield
    except OSError as error:
        todo = "choose a folder that you may write to with -o"
        if error.errno in NO_ROOM:
            todo = "free some room, or write elsewhere with -o"
        raise NotWritten(asked, error.strerror or str(error), todo) from error


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output folder that exists, before work starts.

    Raises:
        UsageError: it exists and may not be replaced.
        NotWritten: its parent can't be written to.
    """
    asked = f"the output {path}"
    if path.exists() and not overwrite:
        raise UsageError(asked, "it exists", "add --overwrite, or choose another -o")
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or _is_ours(path))):
        raise UsageError(asked, "it is there and was not made by seatrial", "choose another -o; nothing was touched")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise NotWritten(asked, f"{parent} is not a folder", "choose another -o")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise NotWritten(asked, f"the folder {parent} is not writable", "choose another -o")


def _is_ours(path: Path) -> bool:
    return any((path / name).exists() for name in ("manifest.json", "study.json"))


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `path` when the block ends well, and vanishes otherwise."""
    asked = f"the output {path}"
    with writing(asked):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.absolute().parent))
        part.chmod(0o755)
    try:
        with writing(asked):
            yield part
            old = part.with_suffix(".old")
            if path.exists():
                path.rename(old)
            part.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
