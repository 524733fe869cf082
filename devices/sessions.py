"""Open an artifact to use it: in this process, or in a worker where its runtime lives in another interpreter."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import targets
from ..core import samples
from ..core.specs import TensorSpec
from .local import OPEN_S, RUN_S, as_error
from .resident import ArmFailed, Resident

if TYPE_CHECKING:
    from numpy import ndarray

    from ..targets import Session, Settings


def open_session(target: str, path: Path, settings: Settings) -> Session:
    """A session of an artifact, wherever its runtime is.

    Raises:
        MissingPart: the runtime isn't here, and no environment has it.
    """
    runtime = targets.require(target)
    python = targets.interpreter(target, settings)
    return WorkerSession(target, path, settings, python) if python else runtime.open(path, settings)


class WorkerSession:
    """A session that lives in a worker, in another interpreter; arrays go there and back as files.

    Attributes:
        step_ns: what the last `step` took in the worker, without the way to it.
    """

    step_ns: int

    def __init__(self, target: str, path: Path, settings: Settings, python: Path) -> None:
        self._asked = f"{target}: run {path.name}"
        self._folder = tempfile.TemporaryDirectory(prefix="seatrial-")
        self._in, self._out = (str(Path(self._folder.name, name)) for name in ("in.npz", "out.npz"))
        self._worker = Resident(Path(self._folder.name, "log.txt"), python)
        weakref.finalize(self, self._worker.close)  # for a caller who never closes
        what = {"target": target, "artifact": str(path.absolute()), "settings": dict(settings)}
        opened = self._ask("open", OPEN_S, **what)
        self.inputs, self.outputs = (
            [TensorSpec.from_dict(spec) for spec in opened[side]] for side in ("inputs", "outputs")
        )

    def run(self, feed: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """See `Session.run`."""
        samples.save(self._in, [feed])
        self._ask("run", RUN_S, inputs=self._in, out=self._out)
        return samples.load(self._out)[0]

    def bind(self, feed: Mapping[str, ndarray]) -> None:
        """See `Session.bind`; the first inference is done on the way."""
        samples.save(self._in, [feed])
        self._ask("first", RUN_S, inputs=self._in, reference=None, bar_db=0.0)
        self._ask("warm", RUN_S, iterations=1, seconds=0.0)

    def step(self) -> None:
        """See `Session.step`."""
        self.step_ns = self._ask("block", RUN_S, k=1)["samples_ns"][0]

    def placement(self) -> dict[str, Any]:
        """See `Session.placement`."""
        return self._ask("placement", RUN_S)

    def close(self) -> None:
        """See `Session.close`."""
        self._worker.close()
        self._folder.cleanup()

    def _ask(self, op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        try:
            return self._worker.ask(op, timeout_s, **arguments)
        except ArmFailed as failed:
            raise as_error(failed, self._asked) from failed
