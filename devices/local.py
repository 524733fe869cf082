"""This machine as a device: takes a whole job as data, gives its result as data."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import targets
from ..core.errors import ChildFailed, SeatrialError, UsageError
from . import lease
from .lease import Progress
from .resident import ArmFailed, Resident

OPEN_S = 300.0
RUN_S = 1800.0


class LocalDevice:
    """The host that this process runs on.

    Args:
        timeout_s: how long all runs of one session in a proof may take together.
    """

    name = "local"

    def __init__(self, timeout_s: float = RUN_S) -> None:
        self.timeout_s = timeout_s

    def run(self, job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Do a job: ``proof`` or ``comparison``.

        A proof answers ``{"runs": [{"settings", "outputs", "n", "placement", "load_ms", "version",
        "dtypes", "error"}]}`` in the order asked; ``outputs`` is the path of a Samples file, ``error`` an error's dict
        or None. A comparison answers with its launches; see `engine.run_comparison`.
        """
        kind = job.get("kind")
        if kind == "proof":
            with lease.shared(self.name, purpose="a proof", progress=progress):
                return {"runs": [self._prove(job, i, progress) for i in range(len(job["runs"]))]}
        if kind == "comparison":
            from .sitting import run_comparison

            return run_comparison(job, progress)
        raise UsageError(f"a job of kind {kind!r}", "no such kind", "known: proof, comparison")

    def _prove(self, job: Mapping[str, Any], index: int, progress: Progress | None) -> dict[str, Any]:
        settings = job["runs"][index]["settings"]
        out = Path(job["out"])
        out.mkdir(parents=True, exist_ok=True)
        answer: dict[str, Any] = {"settings": settings, "outputs": None, "placement": None, "error": None}
        if progress:
            progress(f"proving {job['target']} {settings}")
        with (
            tempfile.TemporaryDirectory(prefix="seatrial-") as folder,
            Resident(Path(folder, "log.txt"), targets.interpreter(job["target"], settings)) as worker,
        ):
            try:
                what = {"target": job["target"], "artifact": str(job["artifact"]), "settings": settings}
                opened = worker.ask("open", OPEN_S, **what)
                answer |= {"load_ms": opened["load_ms"], "version": opened["version"]}
                answer["dtypes"] = {spec["name"]: spec["dtype"] for spec in opened["inputs"]}
                ran = worker.ask("run", self.timeout_s, inputs=str(job["inputs"]), out=str(out / f"{index:02d}.npz"))
                answer |= {"outputs": ran["outputs"], "n": ran["n"]}
                answer["placement"] = worker.ask("placement", self.timeout_s)
            except ArmFailed as failed:
                answer["error"] = as_error(failed, f"{job['target']}: run {Path(job['artifact']).name}").to_dict()
        return answer


def as_error(failed: ArmFailed, asked: str) -> SeatrialError:
    """The worker's own error, or one that says how it ended."""
    if failed.error:
        return failed.error
    return ChildFailed(asked, failed.reason, "run it again with more time or memory", kind=failed.status)
