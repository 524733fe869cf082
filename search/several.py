"""What is stored of a search over many models, seen by its goals: no code of the user's is needed for it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.ids import content_id
from ..core.paths import whole_file
from ..core.process import Limits
from ..targets import get
from . import on_device
from .candidate import Candidate
from .evaluate import ALL_LOSS, Deployments
from .findings import Latency, row_of
from .goals import Goals
from .making import making
from .objectives import Estimate, Objective
from .roster import Roster, Tried
from .trials import Trial
from .underway import Say, Underway
from .views import Views

WIDENED = "widened.json"


@dataclass(frozen=True)
class Widened:
    """A runtime that a study has since its search ended.

    Attributes:
        version: of the runtime.
        whole: whether all that was due is done; after a kill it isn't.
    """

    version: str
    whole: bool = False


def widened(folder: Path) -> dict[str, Widened]:
    """Those of a study, by name."""
    file = folder / "work" / WIDENED
    found = json.loads(file.read_text()) if file.exists() else {}
    return {name: Widened(**data) for name, data in found.items()}


def keep_widened(folder: Path, new: Mapping[str, Widened]) -> None:
    """Write them down, beside others or in place of them."""
    with whole_file(folder / "work" / WIDENED) as part:
        part.write_text(json.dumps({name: asdict(one) for name, one in {**widened(folder), **new}.items()}))


class Several(Underway):
    """A search over many models, under way or only chosen from again.

    Args:
        folder, key, limits, say, store: as `Underway` takes them.
        goals: what is wanted.
        deployments: what the search deploys every model as.
        seed: of measurements.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        limits: Limits,
        say: Say,
        store: str | None,
        goals: Goals,
        deployments: Deployments,
        seed: int,
    ) -> None:
        super().__init__(folder, key, limits, say, store, host_name())
        self.goals, self.deployments, self.seed = goals, deployments, seed
        self.roster = Roster(self.store, key)
        added = [objective for name, objective in goals.added.items() if name in goals.all]
        self.judged = [objective for objective in added if objective.data or objective.device]
        self._own: list[Objective] = []

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Runtimes that the study was widened by whose facts don't count now, each with the reason."""
        found = {}
        for name, one in widened(self.folder).items():
            here = get(name).version()
            if here != one.version and name not in self.deployments.targets:
                found[name] = f"it was added with version {one.version}, here is {here or 'none'}"
        return found

    def make(self, model: str, todo: Sequence[Candidate]) -> None:
        """Convert, quantize and prove deployments of a captured model; their trials are stored as they come."""
        if not todo:
            return
        with making(self.folder, model, ALL_LOSS, self.limits, self.say, self.timed) as one:
            one.load()
            for trial in one.prove_all(todo):
                self.trials.add(trial)

    def values(
        self, trials: Mapping[str, Trial], models: Mapping[str, Tried], latency: Mapping[str, Latency] = {}
    ) -> dict[str, dict[str, Estimate]]:
        """Estimates of all that is wanted: name → id → estimate."""
        if not any(trial.status == "ok" for trial in trials.values()):
            return {name: {} for name in self.goals.all}
        rows = [row_of(trial, models[trial.candidate.model], latency.get(trial.id)) for trial in trials.values()]
        document: dict[str, Any] = {"key": self.key, "candidates": rows}
        with closing(Views(self.folder, document, self.store, trials)) as views:
            document["data"] = views.program.data
            if self.goals.described and not self._own:
                self._own = self.goals.objectives(views.program)
                for objective in self._own:
                    views.kept.add(objective)
            found = {name: views.estimates(name) for name in self.goals.all}
            for objective in self.judged:
                if objective.device:  # of some that are the same there one alone was timed
                    every = on_device.for_all(objective, list(trials.values()), found[objective.name])
                    found[objective.name] = every
            return found


def host_name() -> str:
    """A short name of this machine for the numbering of its launches."""
    name = socket.gethostname()
    return name if len(name) <= 24 else f"{name[:16]}-{content_id(name)[:7]}"
