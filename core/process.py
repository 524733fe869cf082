"""Isolated processes: a crash, hang or memory leak in one is data here, never our end.

A child runs one function of ours by name, gets and gives JSON, and writes what it prints into a log.
It has its own process group, a time limit and a memory watch, and dies with its parent.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ChildFailed, NotWritten, SeatrialError, from_dict
from .ids import content_id
from .paths import MAKE_ROOM, cache_dir

GIB = 1 << 30
_ALIVE: set[Child] = set()


@dataclass(frozen=True)
class Limits:
    """How long a child may run (seconds) and how much resident memory its process tree may use (bytes).

    `options` are what a user gives more of either by.
    """

    timeout_s: float = 1800.0
    memory_bytes: int | None = None
    options: tuple[str, str] = ("--timeout", "--memory")


@dataclass(frozen=True)
class Exit:
    """How a child ended: `kind` is ok, timeout, oom, signal or error; `detail` says it in words."""

    kind: str
    detail: str


class Child:
    """A running process in a group of its own; ended with all its descendants by `kill`.

    Args:
        argv: the command.
        log: file that takes stdout and stderr.
        env: added to `child_env`.
        cwd: its working folder.
        stdin: as for `subprocess.Popen`.
        pass_fds: descriptors that a resident worker reads and writes.
    """

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log, self.halted_s = log, 0.0
        self.verdict: Exit | None = None
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=child_env(env or {}),
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        _ALIVE.add(self)

    def kill(self, why: Exit | None = None) -> None:
        """End the whole group at once; safe to call twice. `why` becomes the verdict."""
        if why and self.verdict is None and self.process.poll() is None:
            self.verdict = why
        # After the leader was reaped its group may still hold descendants; a reused id is refused by the kernel
        # as long as one of them lives, and there is nobody to hit otherwise.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()
        _ALIVE.discard(self)

    def classify(self) -> Exit:
        """The verdict on an ended child."""
        code = self.process.wait()
        _ALIVE.discard(self)
        if self.verdict:
            return self.verdict
        if code == 0:
            return Exit("ok", "exit code 0")
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else str(-code)
            hint = " (often the kernel's out-of-memory killer)" if name == "SIGKILL" else ""
            return Exit("signal", f"killed by {name}{hint}")
        return Exit("error", f"exit code {code}")

    def watch(self, limits: Limits, give_way: Callable[[int], float] | None = None) -> Exit:
        """Wait for the end, and bring it about when a limit is passed.

        Args:
            limits: of the child.
            give_way: called again and again with the group's id; it may halt it, and says for how many seconds it did.
        """
        deadline = time.monotonic() + limits.timeout_s
        pause = 0.01
        try:
            while self.process.poll() is None:
                halted = give_way(self.process.pid) if give_way else 0.0
                deadline, self.halted_s = deadline + halted, self.halted_s + halted
                if time.monotonic() > deadline:
                    self.kill(Exit("timeout", f"no end after {limits.timeout_s:g} s"))
                elif limits.memory_bytes and (used := tree_rss(self.process.pid)) > limits.memory_bytes:
                    limit = limits.memory_bytes / GIB
                    self.kill(Exit("oom", f"used {used / GIB:.2f} GiB of memory, limit {limit:.2f} GiB"))
                else:
                    time.sleep(pause)
                    pause = min(pause * 1.5, 0.1)
        except BaseException:
            self.kill()
            raise
        verdict = self.classify()
        self.kill()  # descendants that outlived the leader
        return verdict


def end_all() -> None:
    """End every child that is still alive; for signal handlers and the end of the program."""
    for child in list(_ALIVE):
        child.kill()


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and its descendants; 0 where it is gone."""
    import psutil

    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def child_env(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: ours, offline and quiet, and able to import `seatrial`."""
    env = dict(os.environ)
    env.pop("PYTHONSAFEPATH", None)
    env.update({"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"})
    # A fixed seed: sets of strings order the nodes of more than one converter's graph.
    env["PYTHONHASHSEED"] = "0"
    env["SEATRIAL_PARENT"] = str(os.getpid())
    env.update(extra)
    return env


def module_command(module: str, *args: str, python: Path | None = None) -> list[str]:
    """The command that runs a module of ours; ``-P`` keeps the working folder off the path."""
    return [str(python or sys.executable), "-P", "-m", module, *args]


def module_env(python: Path | None) -> dict[str, str]:
    """What the environment of `module_command` needs: another interpreter finds `seatrial`, and nothing beside it.

    Nothing but CUDA's libraries, where ours has them as packages (torch brings them): they are too large for each to
    have its own.

    Raises:
        NotWritten: the cache folder can't be written to.
    """
    if python is None:
        return {}
    root = Path(__file__).resolve().parent.parent
    link = cache_dir() / "links" / content_id(str(root)) / "seatrial"
    try:
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            part = link.with_name(f".{secrets.token_hex(4)}")
            part.symlink_to(root)
            part.replace(link)
    except OSError as error:
        raise NotWritten(f"a link to {root}", str(error), MAKE_ROOM) from error
    return {"PYTHONPATH": str(link.parent), **_cuda_libraries()}


def _cuda_libraries() -> dict[str, str]:
    """``LD_LIBRARY_PATH`` with the folders of NVIDIA's packages behind what it holds; nothing where there are none."""
    spec = importlib.util.find_spec("nvidia")
    roots = map(Path, (spec.submodule_search_locations or ()) if spec else ())
    folders = [str(folder) for root in roots for folder in sorted(root.glob("*/lib"))]
    before = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": os.pathsep.join([*([before] if before else []), *folders])} if folders else {}


class Running:
    """A function of ours that runs in a child; `result` waits for its answer."""

    def __init__(self, function: str, child: Child, workdir: Path, limits: Limits, label: str) -> None:
        self.function, self.child, self.workdir = function, child, workdir
        self.limits, self.label = limits, label

    def result(self, give_way: Callable[[int], float] | None = None) -> dict[str, Any]:
        """The child's answer; for `give_way` see `Child.watch`.

        Raises:
            SeatrialError: the child's own error, as it raised it.
            ChildFailed: it crashed, hung, or used too much memory.
        """
        verdict = self.child.watch(self.limits, give_way)
        answer = _read_answer(self.workdir / "result.json")
        if answer and "error" in answer:
            error = from_dict(answer["error"])
            error.log = error.log or str(self.child.log)
            raise error
        if verdict.kind == "ok" and answer is not None:
            result: dict[str, Any] = answer["result"]
            return result
        raise self._failure(verdict)

    def _failure(self, verdict: Exit) -> SeatrialError:
        if self.child.process.returncode == os.EX_IOERR:
            return NotWritten(self.label, f"its answer could not be written to {self.workdir}", MAKE_ROOM)
        more_time, more_memory = self.limits.options
        todo = {
            "timeout": f"give it more time with {more_time}, or look at the log to see where it stood",
            "oom": f"give it more memory with {more_memory}, or use a smaller model or fewer samples",
        }.get(verdict.kind, "the last lines of the log tell more")
        return ChildFailed(self.label, verdict.detail, todo, str(self.child.log), kind=verdict.kind)

    def cancel(self) -> None:
        """End it without an answer."""
        self.child.kill()


def start(
    function: str,
    args: Mapping[str, Any],
    *,
    workdir: Path,
    limits: Limits = Limits(),
    label: str,
    env: Mapping[str, str] | None = None,
    python: Path | None = None,
) -> Running:
    """Run ``package.module:function(**args)`` in a child; `args` and the answer are JSON.

    `workdir` (made if missing) takes ``job.json``, ``result.json`` and ``log.txt``; `label` opens every error message;
    `python` is another interpreter than ours, which has what that module imports.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "result.json").unlink(missing_ok=True)
    (workdir / "job.json").write_text(json.dumps({"function": function, "args": dict(args), "label": label}))
    command = module_command("seatrial.core.child", str(workdir.resolve()), python=python)
    child = Child(command, workdir / "log.txt", env={**(env or {}), **module_env(python)})
    return Running(function, child, workdir, limits, label)


def call(
    function: str,
    args: Mapping[str, Any],
    *,
    workdir: Path,
    limits: Limits = Limits(),
    label: str,
    env: Mapping[str, str] | None = None,
    python: Path | None = None,
) -> dict[str, Any]:
    """`start` and wait for the result."""
    return start(function, args, workdir=workdir, limits=limits, label=label, env=env, python=python).result()


def _read_answer(path: Path) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return answer
