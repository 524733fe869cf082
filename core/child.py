"""The inside of an isolated process: reads a job, calls one function, writes the answer, leaves at once."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import ChildFailed, NotWritten, SeatrialError
from .paths import MAKE_ROOM, NO_ROOM


def die_with_parent() -> None:
    """End this process, and what it started, when its parent ends, however that happens."""
    parent = int(os.environ.get("SEATRIAL_PARENT", "0"))
    if sys.platform == "linux":
        _guard_group()
        _on_parents_death(signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if parent and os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def _on_parents_death(signum: int) -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


def _guard_group() -> None:
    """Leave a sleeping process that ends our group after us: the kernel tells of a death to children only."""
    leader = os.getpid()
    if os.getpgid(0) != leader or os.fork():
        return
    os.closerange(0, 1 << 16)  # a pipe of ours must end with us
    # SIGCONT wakes it where the whole group was halted; the group gets one too when it may go on.
    woken = {signal.SIGTERM, signal.SIGCONT}
    signal.pthread_sigmask(signal.SIG_BLOCK, woken)
    _on_parents_death(signal.SIGCONT)
    while os.getppid() == leader:
        signal.sigwait(woken)
    os.killpg(leader, signal.SIGKILL)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main(workdir: str) -> None:
    """Do the job in `workdir`."""
    die_with_parent()
    job = json.loads(Path(workdir, "job.json").read_text())
    answer = _answer(job["function"], job["args"], job["label"])
    part = Path(workdir, "result.json.part")
    try:
        part.write_text(answer)
        os.replace(part, Path(workdir, "result.json"))
    except OSError:
        log_trace()
        os._exit(os.EX_IOERR)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # A normal exit after torch or a runtime costs up to two seconds and can crash in destructors; all files are closed.
    os._exit(0)


def log_trace() -> None:
    """Print the traceback of the error at hand."""
    with suppress(OSError):  # the log's disk may be full: that must not hide the error
        traceback.print_exc()


def _answer(function: str, args: dict[str, Any], label: str) -> str:
    module, _, name = function.partition(":")
    try:
        return json.dumps({"result": getattr(importlib.import_module(module), name)(**args)})
    except SeatrialError as error:
        failure = error
    except MemoryError as error:
        failure = ChildFailed(label, f"out of memory: {error}", kind="oom")
    except (Exception, SystemExit) as error:
        text = str(error).strip()
        found = f"{type(error).__name__}: {text[:2000]}" if text else type(error).__name__
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            failure = NotWritten(label, found, MAKE_ROOM)
        else:
            failure = ChildFailed(label, found, "the last lines of the log tell more")
    log_trace()
    return json.dumps({"error": failure.to_dict()})


if __name__ == "__main__":
    main(sys.argv[1])
