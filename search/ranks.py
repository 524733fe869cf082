"""Whether inherited weights rank a study's models as weights of their own do: looked at once, then read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..core.paths import whole_file
from .folder import alone
from .models.api import Models
from .space import Space, Values
from .studyfile import StudyFile
from .underway import Underway

FILE = "fidelity.json"
RANKED = 6
"""Models that are trained alone to see it."""


class Ranks:
    """What one file of a study's folder tells.

    Args:
        underway: the search.
        models: of the study.
        study: its file.
        seed: of the choice of models.
    """

    def __init__(self, underway: Underway, models: Models, study: StudyFile, seed: int) -> None:
        self.underway, self.models, self.study, self.seed = underway, models, study, seed

    def see(self) -> None:
        """Train what models share and some of them alone, unless that is done."""
        if self._file.exists():
            return
        with alone(self.underway.folder):
            if not self._file.exists():  # another process may have done it while we waited
                self._rank()

    @property
    def text(self) -> str | None:
        """In words; None where nothing is inherited."""
        return self._known.get("text")

    @property
    def n(self) -> int:
        """How many models were trained to see it."""
        return int(self._known.get("n", 0))

    @property
    def trusted(self) -> bool:
        """Whether inherited weights may decide."""
        return bool(self._known["trusted"])

    def _rank(self) -> None:
        with self.underway.timed("train"):
            self.models.train_shared()
            found = self.models.fidelity(self.models.spread(self._some(4 * RANKED), RANKED))
        with whole_file(self._file) as part:
            part.write_text(json.dumps({"text": found.text, "n": found.n, "trusted": found.trusted}))

    def _some(self, n: int) -> list[Values]:
        import numpy as np

        space, rng = Space.from_dict(self.study.space, self.study.forbidden), np.random.default_rng(self.seed)
        return [space.sample(rng) for _ in range(n)]

    @property
    def _file(self) -> Path:
        return self.underway.work / FILE

    @property
    def _known(self) -> dict[str, Any]:
        return told(self.underway.work)


def told(work: Path) -> dict[str, Any]:
    """What is known of a study's folder of work: ``text``, ``n``, ``trusted``; nothing where nothing is inherited."""
    file = work / FILE
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found
