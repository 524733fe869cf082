"""The study's folder: who may write to it, and how a new study takes the place of an old one."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..core.errors import SeatrialError, UsageError
from ..core.paths import check_free, replace_folder, writing

NEW, OLD = ".seatrial-new", ".seatrial-old"


@contextmanager
def study_folder(folder: Path, key: str, overwrite: bool, joined: bool = False) -> Iterator[Path]:
    """Where a search of this key works, locked: the study's folder or, with `overwrite`, one beside it.

    With `joined` other processes may work at the same search there, too.

    The one beside it takes the place of the other when the block ends well. Until then what was there stays as it is,
    and the same call goes on in the one beside it.

    Raises:
        UsageError: it holds another search or something that isn't ours, or another search is writing to it.
    """
    _put_back(folder)
    if overwrite:
        with _anew(folder, key) as new:
            yield new
    else:
        _begin(folder, key)
        with _locked(folder, folder, joined):
            yield folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """For what only one of the processes that joined in a search may do at a time: others wait."""
    with (folder / "work" / "alone").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_once(file: Path, text: str) -> str:
    """A small file that the first of several processes writes for all; what it holds."""
    if not file.exists():
        with writing(f"the output {file}"), tempfile.NamedTemporaryFile("w", dir=file.parent) as part:
            part.write(text)
            part.flush()
            with suppress(FileExistsError):  # another process was faster: its text stands
                os.link(part.name, file)
    return file.read_text()


def sweep(folder: Path) -> None:
    """Remove what a kill while packing left; only where nobody else packs."""
    for left in (*folder.glob(".*.part"), *folder.glob(".*.old")):
        shutil.rmtree(left, ignore_errors=True)


def how_anew(folder: Path) -> str:
    """What to do to begin anew where a search works: with `overwrite` it goes on in the folder beside."""
    return f"delete {folder}" if folder.name.endswith(NEW) else "add --overwrite"


def _begin(folder: Path, key: str) -> None:
    """A new folder with the key, or one that this very search left behind, or just began in another process."""
    if _is_begun(folder, key):
        return
    empty = folder.is_dir() and not any(folder.iterdir())  # it may be the working folder
    try:
        check_free(folder, overwrite=empty)
        place = (folder / "work" if empty else folder).resolve()
        part = _beside(place, f".{secrets.token_hex(4)}.part")
        try:
            with writing(f"the output {folder}"):
                work = part if empty else part / "work"
                work.mkdir(parents=True)
                (work / "key").write_text(key)
                part.rename(place)  # refused where another process was faster: what it has begun is never replaced
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except SeatrialError:
        if not _is_begun(folder, key):
            raise


def _is_begun(folder: Path, key: str) -> bool:
    mark = folder / "work" / "key"
    if not mark.exists():
        return False
    if mark.read_text() == key:
        return True
    found = "it holds a search of other arguments, other files beside the model, another machine or runtime version"
    raise UsageError(
        f"the output {folder}", found, "give the same arguments to go on with it, another -o, or --overwrite"
    )


@contextmanager
def _anew(folder: Path, key: str) -> Iterator[Path]:
    place = folder.resolve()  # of a link, the folder that it names is replaced
    if Path.cwd().is_relative_to(place):
        found = "the working folder lies in it, and --overwrite replaces it"
        raise UsageError(f"the output {folder}", found, "start the search in another folder, or choose another -o")
    new = _beside(place, NEW)
    with ExitStack() as stack:
        begun = _lock_if_begun(stack, place, folder)
        if not begun:
            check_free(folder, overwrite=True)
        with ExitStack() as briefly:
            _lock_if_begun(briefly, new, folder)
            if not (new / "work" / "key").exists() or (new / "work" / "key").read_text() != key:
                shutil.rmtree(new, ignore_errors=True)
        _begin(new, key)
        with _locked(new, folder):
            yield new
        if not begun and not _lock_if_begun(stack, place, folder):  # it may have come while we worked
            check_free(folder, overwrite=True)
        with writing(f"the output {folder}"):
            replace_folder(new, place, _beside(place, OLD))


def _put_back(folder: Path) -> None:
    """What was there, where a kill came in the very moment when a new study took its place."""
    place = folder.resolve()
    old = _beside(place, OLD)
    if old.exists() and not place.exists():
        old.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(f".{place.name}{suffix}")


def _lock_if_begun(stack: ExitStack, folder: Path, output: Path) -> bool:
    """Whether a search was ever begun there; if so, it is locked."""
    begun = (folder / "work" / "key").exists()
    if begun:
        stack.enter_context(_locked(folder, output))
    return begun


@contextmanager
def _locked(folder: Path, output: Path, joined: bool = False) -> Iterator[None]:
    """A lock on a study's folder, which ends with this process, however that ends."""
    with writing(f"the output {output}"):
        file = (folder / "work" / "lock").open("w")
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if joined else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"the output {output}", "another search is writing to it", "wait for its end") from None
        yield
