"""Whether untrained models are timed before one is trained: only where that spares more than it costs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .folder import write_once
from .roster import Tried

LOOKS = 3
"""Untrained models that are timed for each that is trained."""
PRICED = 5
"""So many trained models tell what training and deploying take."""
_AFTER = {"train", "confirm"}
"""Stages that are no part of a look."""


@dataclass(frozen=True)
class Price:
    """Seconds of a training and of a look: deploying a model and timing it."""

    training_s: float
    look_s: float

    @property
    def pays(self) -> bool:
        """Whether the looks before a training cost less than it."""
        return LOOKS * self.look_s < self.training_s

    @property
    def text(self) -> str:
        """In words."""
        head = f"a training takes {self.training_s:.1f} s, deploying a model {self.look_s:.1f} s"
        return f"{head}: {f'{LOOKS} untrained models are' if self.pays else 'no untrained model is'} timed before each"


def price(work: Path, models: Sequence[Tried], seconds: Mapping[str, float]) -> Price | None:
    """What was found by the first models, once for a search and for all of its processes; None while they are too few.

    Args:
        work: keeps the answer.
        models: that were trained; those that failed tell nothing of trainings.
        seconds: stage → what it took, for all models.
    """
    file = work / "looks.json"
    if not file.exists():
        training = [one.seconds for one in models if one.status == "ok"]
        if len(training) < PRICED:
            return None
        deploying = sum(took for stage, took in seconds.items() if stage not in _AFTER)
        write_once(file, json.dumps(asdict(Price(statistics.mean(training), deploying / len(models)))))
    return Price(**json.loads(file.read_text()))
