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
from pathlib import Path
from typing import Any

from .errors import ChildFailed, SeatrialError


def die_with_parent() -> None:
    """End this process when its parent ends, however that happens."""
    parent = int(os.environ.get("SEATRIAL_PARENT", "0"))
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if parent and os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(workdir: str) -> None:
    """Do the job in `workdir`."""
    die_with_parent()
    job = json.loads(Path(workdir, "job.json").read_text())
    answer = _answer(job["function"], job["args"])
    part = Path(workdir, "result.json.part")
    part.write_text(json.dumps(answer))
    os.replace(part, Path(workdir, "result.json"))
    sys.stdout.flush()
    sys.stderr.flush()
    # A normal exit after torch or a runtime costs up to two seconds and can crash in destructors; all files are closed.
    os._exit(0)


def _answer(function: str, args: dict[str, Any]) -> dict[str, Any]:
    module, _, name = function.partition(":")
    try:
        return {"result": getattr(importlib.import_module(module), name)(**args)}
    except SeatrialError as error:
        traceback.print_exc()
        return {"error": error.to_dict()}
    except MemoryError as error:
        traceback.print_exc()
        return {"error": ChildFailed(function, f"out of memory: {error}", kind="oom").to_dict()}
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip()
        found = f"{type(error).__name__}: {text[:2000]}" if text else type(error).__name__
        return {"error": ChildFailed(function, found, "the last lines of the log tell more").to_dict()}


if __name__ == "__main__":
    main(sys.argv[1])
