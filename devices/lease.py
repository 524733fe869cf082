"""The lease that keeps two measurements of one device apart, and our conversions out of a measurement.

A measurement takes it alone (`exclusive`), conversions share it (`shared`). It is an flock on a file of this
user, so it ends with the process that holds it, however that ends. It keeps our own work apart, nobody
else's.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import NotWritten

Progress = Callable[[str], None]
_HELD = threading.local()


@contextmanager
def exclusive(device: str = "local", *, purpose: str = "", progress: Progress | None = None) -> Iterator[None]:
    """Hold the device alone; nested calls in the same thread are free.

    Raises:
        RuntimeError: this thread shares the lease already, so that waiting would never end.
    """
    with _held(device, fcntl.LOCK_EX, purpose or "a measurement", progress):
        yield


@contextmanager
def shared(device: str = "local", *, purpose: str = "", progress: Progress | None = None) -> Iterator[None]:
    """Hold the device beside others that share it: conversions, proofs, anything that isn't timed."""
    with _held(device, fcntl.LOCK_SH, purpose or "a conversion", progress):
        yield


def holder(device: str = "local") -> str | None:
    """Who holds the device just now, in words; None where it is free."""
    path = lease_file(device)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None


def lease_file(device: str) -> Path:
    """Where the lock lies: one folder for a user, whatever their TMPDIR or session is."""
    folder = Path(os.environ.get("SEATRIAL_LEASE_DIR") or f"/tmp/seatrial-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.lstat()
    except OSError as error:
        raise NotWritten(f"a lease on device {device!r}", str(error), "set SEATRIAL_LEASE_DIR to a folder") from error
    if folder.is_symlink() or owner.st_uid != os.getuid():
        found = f"{folder} belongs to somebody else"
        raise NotWritten(f"a lease on device {device!r}", found, "set SEATRIAL_LEASE_DIR to a folder of your own")
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in device)
    return folder / f"{safe}.lease"


@contextmanager
def _held(device: str, mode: int, purpose: str, progress: Progress | None) -> Iterator[None]:
    held: dict[str, int] = _HELD.__dict__.setdefault("modes", {})
    path = lease_file(device)
    now = held.get(str(path))
    if now == fcntl.LOCK_EX or now == mode:
        yield
        return
    if now is not None:
        raise RuntimeError("this thread shares the lease and asks for it alone: give it back first")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, device, mode, progress)
        held[str(path)] = mode
        _sign(descriptor, purpose)
        yield
    finally:
        held.pop(str(path), None)
        os.close(descriptor)  # and with it the lock


def _take(descriptor: int, device: str, mode: int, progress: Progress | None) -> None:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        holder = _holder(descriptor)
    if progress:
        progress(f"waiting for device {device!r}: {holder}")
    fcntl.flock(descriptor, mode)  # asleep until it is ours: polling would disturb what is being measured


def _sign(descriptor: int, purpose: str) -> None:
    """Leave word of who holds it; with several that share, of the last one."""
    text = json.dumps({"pid": os.getpid(), "purpose": purpose, "since": time.strftime("%H:%M:%S")}).encode()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text, 0)


def _holder(descriptor: int) -> str:
    try:
        word = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {word['pid']} holds it for {word['purpose']} since {word['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process of ours holds it"
