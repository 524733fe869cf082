"""Making, listing and removing environments, and finding the Python that one needs.

An environment is made where it stays (its scripts carry its path), under a lock, and sealed last: a folder without
a valid seal is broken, and made again by the next `create`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import environments
from ..core.environments import TABLE, Environment, State
from ..core.errors import ChildFailed, MissingPart, NotWritten, SeatrialError, UsageError
from ..core.paths import MAKE_ROOM, NO_ROOM
from ..core.process import Child, Limits

Say = Callable[[str], None]
MAKE_S = 3600.0


@dataclass(frozen=True)
class Status:
    """One environment as it stands on this machine.

    Attributes:
        env: what it holds.
        state: whether it can be used.
        old: folders of other versions of it, which nothing uses any more.
    """

    env: Environment
    state: State
    old: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        ready = self.state.kind == "ready"
        return {
            "name": self.env.name,
            "what": self.env.what,
            "state": self.state.kind,
            "detail": self.state.detail,
            "download_mb": self.env.download_mb,
            "disk_mb": self.state.disk_mb if ready else self.env.disk_mb,
            "python": self.state.python,
            "path": str(self.env.folder) if self.state.kind != "absent" else "",
            "old": [str(folder) for folder in self.old],
            "todo": "" if ready else self.env.command,
            "untested": self.env.untested,
        }


def statuses() -> list[Status]:
    """Every known environment as it stands here; starts the interpreters of those that are there."""
    return [Status(env, environments.state(env), _old(env)) for env in TABLE.values()]


def interpreter(name: str, create: bool = False, say: Say | None = None, *, asked: str = "") -> Path:
    """The interpreter of an environment, which is made only where that is allowed.

    Args:
        create: make it (again) where it isn't ready.
        asked: what it is needed for; opens the error.

    Raises:
        MissingPart: it isn't ready and may not be made, or there is no Python to make it with.
        ChildFailed: making it failed.
    """
    if create and environments.state(environments.known(name)).kind != "ready":
        return make(name, say=say)
    return environments.need(name, asked or f"the environment {name}")


def make(name: str, python: str | Path | None = None, say: Say | None = None) -> Path:
    """Make an environment, or find that it is ready; what is broken is made again.

    Args:
        python: make it with this interpreter instead of looking for one.
        say: takes one line about each step.

    Raises:
        UsageError: no such environment, or `python` doesn't fit.
        MissingPart: no Python that fits was found; the error lists what was tried.
        ChildFailed: venv or pip failed; the log is kept.
        NotWritten: no room or no permission.
    """
    env = environments.known(name)
    say = say or (lambda text: None)
    given = _fitting(env, Path(python)) if python else None
    with _alone(env, say):
        found = environments.state(env)
        if found.kind == "ready":
            if given and environments.version(given) != found.python:
                asked = f"the environment {name} with {given}"
                raise UsageError(asked, f"it is there, with Python {found.python}", f"seatrial env remove {name}")
            return environments.interpreter_of(env.folder)
        if found.kind == "broken":
            say(f"{name} is broken ({found.detail}): it is made again")
        base = given or find_python(env)
        try:
            _fill(env, base, say)
        except BaseException:
            shutil.rmtree(env.folder, ignore_errors=True)
            raise
    return environments.interpreter_of(env.folder)


def remove(name: str, say: Say | None = None) -> list[Path]:
    """Remove an environment and its older versions; answers with the folders that went.

    Raises:
        UsageError: no such environment, or nothing of it is here.
    """
    env = environments.known(name)
    with _alone(env, say or (lambda text: None)):
        folders = [folder for folder in [env.folder, *_old(env)] if folder.exists()]
        if not folders:
            raise UsageError(f"the environment {name}", "it is not here", "seatrial env list shows what is")
        for folder in folders:
            with _writing(env):
                (folder / environments.READY).unlink(missing_ok=True)  # from now on it is broken, whatever happens
                shutil.rmtree(folder)
            _log(folder).unlink(missing_ok=True)
    return folders


def find_python(env: Environment) -> Path:
    """An interpreter that its wheels exist for: ours, one on PATH that really runs, pyenv's, uv's.

    Raises:
        MissingPart: none; what was tried stands in the error.
    """
    tried = []
    for path in _candidates(env):
        found = environments.version(path)
        if found and _minor(found) in env.pythons:
            return path
        tried.append(f"{path} ({f'is {found}' if found else 'does not run'})")
    wanted = " or ".join(env.pythons)
    here = "; ".join(tried) if tried else "nothing of that name"
    todo = f"install Python {env.pythons[0]}, or name one: {env.command} --python PATH"
    raise MissingPart(f"the environment {env.name}", f"it needs Python {wanted}; tried: {here}", todo)


def _candidates(env: Environment) -> Iterator[Path]:
    """Interpreters that may fit, none twice; those that others installed for themselves come last."""
    seen: set[Path] = set()
    places = [os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")]
    for version in env.pythons:
        # The one that runs us, without the environment around it: an environment that is removed takes none with it.
        paths = [Path(sys.base_prefix, "bin", f"python{version}")]
        paths += [Path(each, f"python{version}") for each in os.get_exec_path() if each]
        for place in filter(None, places):
            paths += sorted(Path(place, "versions").glob(f"{version}.*/bin/python{version}"), reverse=True)
        for path in [*paths, *_of_uv(version)]:
            if path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _of_uv(version: str) -> list[Path]:
    """What uv has installed; it is asked where that is, and never to download."""
    uv = shutil.which("uv")
    if not uv:
        return []
    try:
        ran = subprocess.run([uv, "python", "dir"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    if ran.returncode != 0 or not ran.stdout.strip():
        return []
    return sorted(Path(ran.stdout.strip()).glob(f"cpython-{version}.*/bin/python{version}"), reverse=True)


def _fitting(env: Environment, python: Path) -> Path:
    found = environments.version(python)
    asked, todo = f"--python {python}", f"give the path of a Python {' or '.join(env.pythons)}"
    if found is None:
        raise UsageError(asked, "it is not there, or does not run as Python", todo)
    if _minor(found) not in env.pythons:
        raise UsageError(asked, f"it is Python {found}", todo)
    return python


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _fill(env: Environment, base: Path, say: Say) -> None:
    """Make it from nothing with this interpreter; the seal is written last."""
    start = time.monotonic()
    with _writing(env):
        shutil.rmtree(env.folder, ignore_errors=True)
        env.folder.parent.mkdir(parents=True, exist_ok=True)
        _log(env.folder).unlink(missing_ok=True)
    python = environments.interpreter_of(env.folder)
    say(f"making {env.name} with {base}")
    # A pip of its own takes ten seconds more: only where the Python that makes it has none.
    outside = _has_pip(base)
    _do(env, [str(base), "-I", "-m", "venv", *["--without-pip"] * outside, str(env.folder)], "venv failed")
    pip = [str(base), "-I", "-m", "pip", "--python", str(python)] if outside else [str(python), "-I", "-m", "pip"]
    say(f"installing {len(env.pins)} packages: {env.cost}")
    # Nothing is resolved and nothing is built: what is written in the table is what is installed.
    install = ["install", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", *env.pins]
    _do(env, [*pip, *install], "pip failed")
    say(f"trying {', '.join(env.modules)}")
    _do(env, [str(python), "-I", "-c", f"import {', '.join(env.modules)}"], "it can't import what it is for")
    say(f"made {env.name} in {time.monotonic() - start:.0f} s")
    seal = {
        "name": env.name,
        "pins": list(env.pins),
        "python": environments.version(python),
        "base": str(base),
        "disk_mb": round(_size(env.folder) / 1e6),
    }
    with _writing(env):
        part = env.folder / f"{environments.READY}.part"
        part.write_text(json.dumps(seal, indent=1))
        part.replace(env.folder / environments.READY)


def _has_pip(python: Path) -> bool:
    """Whether it has a pip that can install for another interpreter (22.3)."""
    asked = [str(python), "-I", "-m", "pip", "--version"]
    ran = subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.match(r"pip (\d+)\.(\d+)", ran.stdout)
    return found is not None and tuple(map(int, found.groups())) >= (22, 3)


def _do(env: Environment, command: list[str], failed: str) -> None:
    log = _log(env.folder)
    at = log.stat().st_size if log.exists() else 0
    # What a user's PYTHONPATH has would count as installed.
    verdict = Child(command, log, env={"PYTHONPATH": "", "PYTHONHOME": ""}).watch(Limits(MAKE_S))
    if verdict.kind != "ok":
        text = log.read_bytes()[at:].decode(errors="replace").strip()
        raise _failure(env, f"{failed}: {_telling(text) or verdict.detail}", text, log)


def _failure(env: Environment, found: str, text: str, log: Path) -> SeatrialError:
    asked = f"the environment {env.name}"
    if "No space left" in text or "Disk quota" in text:
        return NotWritten(asked, found, MAKE_ROOM, str(log))
    return ChildFailed(asked, found, f"the log tells more; then again: {env.command}", str(log))


def _telling(text: str) -> str:
    """The line of a log that says why: pip's last error, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|error|\w*Error)\b", line)]
    return (errors or lines or [""])[-1][:400]


@contextmanager
def _writing(env: Environment) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        todo = MAKE_ROOM if error.errno in NO_ROOM else "let XDG_CACHE_HOME name a folder that you may write to"
        raise NotWritten(f"the environment {env.name}", str(error), todo) from error


@contextmanager
def _alone(env: Environment, say: Say) -> Iterator[None]:
    """Only one process makes or removes environments of a name; it ends with the process that holds it."""
    path = environments.home() / f"{env.name}.lock"
    with _writing(env):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is making {env.name}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock; the file stays, so that all lock the same one


def _old(env: Environment) -> list[Path]:
    form = re.compile(re.escape(env.name) + "-[0-9a-f]{8}")
    folders = environments.home().glob(f"{env.name}-*") if environments.home().exists() else []
    return sorted(f for f in folders if f.is_dir() and form.fullmatch(f.name) and f != env.folder)


def _log(folder: Path) -> Path:
    return folder.with_name(folder.name + ".log")


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += 0 if path.is_symlink() else path.stat().st_size
    return total
