"""A worker that is asked before anything is timed: what a model takes, and whether it takes what the user wants."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, UsageError
from ..core.specs import TensorSpec
from .resident import ArmFailed, Resident

OPEN_S = 300.0


class Probe:
    """One artifact in a process of its own, so that a file that crashes its runtime doesn't take us along.

    A context manager.
    """

    def __init__(self, target: str, artifact: Path, settings: Mapping[str, Any]) -> None:
        from .. import targets

        self.target, self.artifact = target, artifact
        self._folder = tempfile.TemporaryDirectory(prefix="seatrial-")
        self._worker = Resident(Path(self._folder.name, "log.txt"), targets.interpreter(target, settings))

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *exc: object) -> None:
        self._worker.close()
        self._folder.cleanup()

    def open(self, settings: Mapping[str, Any]) -> list[TensorSpec]:
        """Load it with these settings; what it takes.

        Raises:
            UsageError: the target doesn't know a setting.
            CannotDo: it doesn't load.
        """
        what = {"target": self.target, "artifact": str(self.artifact), "settings": dict(settings)}
        try:
            opened = self._worker.ask("open", OPEN_S, **what)
        except ArmFailed as failed:
            if isinstance(failed.error, UsageError):
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
