"""The lease that keeps two measurements of one device apart, and our conversions out of a measurement.

A measurement takes it alone (`exclusive`), conversions share it (`shared`). It is an flock on a file of this
user, so it ends with the process that holds it, however that ends. It keeps our own work apart, nobody
else's. Long work that shares it gives way (`Shared.give_way`): a measurement doesn't wait for a training's end.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import NotWritten

Progress = Callable[[str], None]
_HELD = threading.local()


@dataclass(frozen=True)
class Shared:
    """A lease that is shared.

    Attributes:
        device: whose.
        purpose: for those who wait.
        descriptor: of the lock; None where an outer call of the thread holds it.
    """

    device: str
    purpose: str
    descriptor: int | None

    def give_way(self, group: int) -> float:
        """Where somebody wants the device alone: halt a group of processes and let go until that is over.

        On Linux alone: elsewhere a halted process would outlive a parent that is killed.

        Returns:
            For how many seconds.
        """
        if self.descriptor is None or sys.platform != "linux" or not _is_wanted(self.device):
            return 0.0
        begun = time.monotonic()
        os.killpg(group, signal.SIGSTOP)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            with _wanted(self.device, fcntl.LOCK_SH):  # asleep until they are done
                pass
            fcntl.flock(self.descriptor, fcntl.LOCK_SH)
            _sign(self.descriptor, self.purpose)
        finally:
            os.killpg(group, signal.SIGCONT)
        return time.monotonic() - begun


@contextmanager
def exclusive(device: str = "local", *, purpose: str = "", progress: Progress | None = None) -> Iterator[None]:
    """Hold the device alone; nested calls in the same thread are free.

    Raises:
        RuntimeError: this thread shares the lease already, so that waiting would never end.
    """
    with _held(device, fcntl.LOCK_EX, purpose or "a measurement", progress):
        yield


@contextmanager
def shared(device: str = "local", *, purpose: str = "", progress: Progress | None = None) -> Iterator[Shared]:
    """Hold the device beside others that share it: conversions, proofs, anything that isn't timed."""
    purpose = purpose or "a conversion"
    with _held(device, fcntl.LOCK_SH, purpose, progress) as descriptor:
        yield Shared(device, purpose, descriptor)


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
def _held(device: str, mode: int, purpose: str, progress: Progress | None) -> Iterator[int | None]:
    held: dict[str, int] = _HELD.__dict__.setdefault("modes", {})
    path = lease_file(device)
    now = held.get(str(path))
    if now == fcntl.LOCK_EX or now == mode:
        yield None
        return
    if now is not None:
        raise RuntimeError("this thread shares the lease and asks for it alone: give it back first")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    told: list[str] = []

    def tell() -> None:
        if progress and not told:
            told.append(f"waiting for device {device!r}: {_holder(descriptor)}")
            progress(told[0])

    try:
        with _wanted(device, mode, tell) if mode == fcntl.LOCK_EX else nullcontext():
            _take(descriptor, mode, tell)
            held[str(path)] = mode
            _sign(descriptor, purpose)
            yield descriptor
    finally:
        held.pop(str(path), None)
        os.close(descriptor)  # and with it the lock


@contextmanager
def _wanted(device: str, mode: int, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A second lock, which those hold who want the device alone, from when they begin to wait: others see that."""
    descriptor = os.open(_wish(device), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, mode, tell)
        yield
    finally:
        os.close(descriptor)


def _is_wanted(device: str) -> bool:
    descriptor = os.open(_wish(device), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _wish(device: str) -> Path:
    return lease_file(device).with_suffix(".wanted")


def _take(descriptor: int, mode: int, tell: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        tell()
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
