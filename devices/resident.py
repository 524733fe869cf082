"""The parent's end of a worker: asks, waits with a deadline, and turns every way of ending into data."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import NotWritten, SeatrialError, from_dict
from ..core.process import Child, Exit, module_command, module_env

MAX_ANSWER_BYTES = 64 << 20
CLOSE_S = 5.0


class ArmFailed(Exception):
    """An arm can't go on. `status` is timeout, oom, signal, error, protocol or mismatch."""

    def __init__(self, status: str, reason: str, error: SeatrialError | None = None) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.error = status, reason, error


class Resident:
    """A worker process that stays until `close`; a context manager that leaves nothing running.

    Args:
        log: the file that takes what the runtime prints.
        python: the interpreter that has the runtime, where it isn't ours.
        module: the worker's module; another one only in tests.
    """

    def __init__(self, log: Path, python: Path | None = None, *, module: str = "seatrial.devices.worker") -> None:
        request_read, self._write = os.pipe()
        self._read, answer_write = os.pipe()
        try:
            argv = module_command(module, str(request_read), str(answer_write), python=python)
            self.child = Child(argv, log, env=module_env(python), pass_fds=(request_read, answer_write))
        except BaseException:
            os.close(self._write)
            os.close(self._read)
            raise
        finally:
            # Ours must go, or the end of the child would not close the pipe.
            os.close(request_read)
            os.close(answer_write)
        self._rest = b""
        self._closed = False

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self.child.process.pid

    def ask(self, op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            ArmFailed: no answer in time, the worker ended, answered with an error, or with something else
                than JSON.
            NotWritten: its disk is full, which says nothing of the arm.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self._send({"op": op, **arguments})
            answer = self._parse(op, self._line(op, deadline, timeout_s))
        except BrokenPipeError:
            raise self._ended(op) from None
        except KeyboardInterrupt:
            self.child.kill()  # nobody waits for the answer any more
            raise
        if "error" in answer:
            raise _failure(op, answer["error"])
        return answer

    def _send(self, request: Mapping[str, Any]) -> None:
        view = memoryview(json.dumps(request).encode() + b"\n")
        while view:
            view = view[os.write(self._write, view) :]

    def _line(self, op: str, deadline: float, timeout_s: float) -> bytes:
        """The next whole line; asleep in `poll` until there is something to read, or the time is up."""
        waiter = select.poll()
        waiter.register(self._read, select.POLLIN)
        parts, size = [self._rest], len(self._rest)
        while b"\n" not in parts[-1]:
            left = deadline - time.monotonic()
            if left <= 0 or not waiter.poll(left * 1000):
                self.child.kill(Exit("timeout", f"no answer to {op!r} within {timeout_s:g} s"))
                raise self._ended(op)
            got = os.read(self._read, 1 << 20)
            size += len(got)
            if not got:
                raise self._ended(op)
            if size > MAX_ANSWER_BYTES:
                self.child.kill(Exit("protocol", f"an answer to {op!r} of more than {MAX_ANSWER_BYTES >> 20} MiB"))
                raise self._ended(op)
            parts.append(got)
        line, _, self._rest = b"".join(parts).partition(b"\n")
        return line

    def _parse(self, op: str, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        except ValueError:
            pass
        self.child.kill(Exit("protocol", f"answered {op!r} with {line[:80]!r}"))
        raise self._ended(op)

    def _ended(self, op: str) -> ArmFailed:
        """Why the worker is gone; one that closed its pipe and lives on is ended."""
        if not _wait(self.child, CLOSE_S):
            self.child.kill(Exit("protocol", f"closed its pipe during {op!r}"))
        verdict = self.child.classify()
        kind = "error" if verdict.kind == "ok" else verdict.kind
        tail = self.log_tail()
        return ArmFailed(kind, f"the worker ended during {op!r}: {verdict.detail}" + (f"; log: {tail}" if tail else ""))

    def log_tail(self, lines: int = 3) -> str:
        """The last lines of what the runtime printed."""
        try:
            text = self.child.log.read_text(errors="replace")[-4000:].strip()
        except OSError:
            return ""
        return " | ".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """Let it end by itself, or end it."""
        if self._closed:
            return
        self._closed = True
        os.close(self._write)  # the end of its requests is its end
        _wait(self.child, CLOSE_S)
        self.child.kill()
        os.close(self._read)

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _failure(op: str, data: Mapping[str, Any]) -> Exception:
    error = from_dict(data)
    if isinstance(error, NotWritten):
        return error
    status = getattr(error, "kind", "error")
    return ArmFailed(status, f"{op}: {error.found}" if status == "oom" or not error.asked else error.one_line, error)


def _wait(child: Child, seconds: float) -> bool:
    """Whether it ended in that time."""
    import subprocess

    try:
        child.process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False
