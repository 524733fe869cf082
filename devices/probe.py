"""A worker that is asked before anything is timed: what a model takes, and whether it takes what the user wants."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, MissingPart, UsageError
from ..core.specs import TensorSpec
from .resident import ArmFailed, Resident

OPEN_S = 300.0
_LOOK = "import sys, numpy, psutil; print(*sys.version_info[:2])"


def interpreter(python: str | Path) -> str:
    """The absolute path of another interpreter that workers can run in: any that has numpy, psutil and a runtime.

    Raises:
        UsageError: there is none, or it is older than ours may be.
        MissingPart: it lacks numpy or psutil.
    """
    path = Path(python).absolute()  # not what a link of a virtual environment leads to
    asked = f"the interpreter {python}"
    try:
        done = subprocess.run([path, "-P", "-c", _LOOK], capture_output=True, text=True, timeout=OPEN_S, check=False)
    except OSError as error:
        raise UsageError(asked, f"it doesn't run: {error.strerror}", "give the path of a Python") from error
    if done.returncode and "Error" in done.stderr:
        lines = done.stderr.strip().splitlines()
        raise MissingPart(asked, lines[-1], f"{python} -m pip install numpy psutil")
    if done.returncode or tuple(map(int, done.stdout.split())) < (3, 11):
        found = f"Python {'.'.join(done.stdout.split())}" if not done.returncode else "it is no Python from 3.11 up"
        raise UsageError(asked, found, "give a Python from 3.11 up")
    return str(path)


class Probe:
    """One artifact in a process of its own, so that a file that crashes its runtime doesn't take us along.

    A context manager.
    """

    def __init__(self, target: str, artifact: Path, settings: Mapping[str, Any], python: str = "") -> None:
        self.target, self.artifact = target, artifact
        self._python = Path(python) if python else None
        self._folder = tempfile.TemporaryDirectory(prefix="seatrial-")
        self._start(self._place(settings))

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._worker.close()
        self._folder.cleanup()

    def _place(self, settings: Mapping[str, Any]) -> Path | None:
        from .. import targets

        return self._python or targets.interpreter(self.target, settings)

    def _start(self, where: Path | None) -> None:
        self._where = where
        self._worker = Resident(Path(self._folder.name, "log.txt"), where)

    def open(self, settings: Mapping[str, Any]) -> list[TensorSpec]:
        """Load it with these settings; what it takes.

        Raises:
            UsageError: the target doesn't know a setting.
            MissingPart: these settings ask for a part of the runtime that isn't here.
            CannotDo: it doesn't load.
        """
        where = self._place(settings)
        if where != self._where:  # a provider may live in another environment
            self._worker.close()
            self._start(where)
        what = {"target": self.target, "artifact": str(self.artifact), "settings": dict(settings)}
        try:
            opened = self._worker.ask("open", OPEN_S, **what)
        except ArmFailed as failed:
            if isinstance(failed.error, (UsageError, MissingPart)):
                raise failed.error from failed
            asked = f"load {self.artifact} in {self.target}"
            raise CannotDo(asked, failed.reason, "is the file whole?") from failed
        return [TensorSpec.from_dict(spec) for spec in opened["inputs"]]

    def first(self, inputs: Path, asked: str, todo: str) -> None:
        """One inference.

        Raises:
            UsageError: these inputs are refused.
        """
        try:
            self._worker.ask("first", OPEN_S, inputs=str(inputs), reference=None, bar_db=0.0)
        except ArmFailed as failed:
            found = " ".join(f"{self.target} refuses it: {failed.reason}".split())[:400]
            raise UsageError(asked, found, todo) from failed
