"""Where our own files live, and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def check_readable(path: Path, asked: str) -> None:
    """Refuse a user's file or folder that can't be read, before work starts.

    Raises:
        UsageError: it is missing, or may not be read.
    """
    try:
        if path.is_dir():
            os.scandir(path).close()
        elif path.is_file():
            path.open("rb").close()
        else:
            path.stat()
    except FileNotFoundError:
        todo = f"check the path; the working folder is {Path.cwd()}"
        raise UsageError(asked, "no such file or folder", todo) from None
    except OSError as error:
        found = f"it can't be read: {error.strerror}"
        raise UsageError(asked, found, "check the path and its permissions") from error


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse an output folder that exists, before work starts.

    Raises:
        UsageError: it exists and may not be replaced.
        NotWritten: its parent can't be written to.
    """
    asked = f"the output {path}"
    with writing(asked):
        place = path.resolve()
        if place.exists() and not overwrite:
            raise UsageError(asked, "it exists", "add --overwrite, or choose another -o")
        if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or _is_ours(place))):
            todo = "choose another -o; nothing was touched"
            raise UsageError(asked, "it is there and was not made by seatrial", todo)
        parent = place.parent
        while not parent.exists():
            parent = parent.parent
    if not parent.is_dir():
        raise NotWritten(asked, f"{parent} is not a folder", "choose another -o")
    try:  # tried, not asked: root may write anywhere by its rights, and still not to a read-only disk
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        found = f"the folder {parent} is not writable: {error.strerror}"
        raise NotWritten(asked, found, "choose another -o") from error


def _is_ours(path: Path) -> bool:
    """Whether it is a bundle or a study: many a folder has a ``manifest.json``, ours says whose it is."""
    for name in ("manifest.json", "study.json"):
        with suppress(OSError, ValueError):
            data = json.loads((path / name).read_text())
            if isinstance(data, dict) and str(data.get("schema", "")).startswith("seatrial."):
                return True
    return False


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `path` when the block ends well, and vanishes otherwise."""
    place = path.resolve()  # of a link, the folder that it names is replaced
    part = _beside(place, ".part")
    try:
        with writing(f"the output {path}"):
            part.mkdir(parents=True)
            yield part
            replace_folder(part, place, part.with_suffix(".old"))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, place: Path, old: Path) -> None:
    """Let a whole folder take its place; what was there is kept as `old` until that is done."""
    try:
        if place.exists():
            place.rename(old)
        part.rename(place)
    finally:
        if old.exists() and not place.exists():  # interrupted between the two
            old.rename(place)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write; it takes the place of `path` when the block ends well, and vanishes otherwise."""
    place = path.resolve()
    # A device or a pipe is written to, never replaced.
    part = place if place.exists() and not place.is_file() else _beside(place, ".part")
    try:
        with writing(f"the output {path}"):
            yield part
            if part != place:
                part.replace(place)
    finally:
        if part != place:
            with suppress(OSError):
                part.unlink()


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}{suffix}")
