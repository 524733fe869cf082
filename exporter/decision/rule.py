"""The rule itself in numpy, and its temperature, fitted to labelled answers of the artifact before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .costs import Costs

if TYPE_CHECKING:
    from numpy import ndarray

COST, DECISION = "expected_cost", "decision"
"""Names of the two outputs that the rule adds."""

TINY = 1e-12
"""Probabilities below it count as this much when their logarithm is taken."""

FEWEST = 50
"""Labelled examples, to fit a temperature to."""

LOWEST, HIGHEST = 0.05, 20.0
"""Of a fitted temperature."""


@dataclass(frozen=True)
class Rule:
    """softmax(scores / T) → expected cost → the decision with the lowest.

    Attributes:
        costs: the cost matrix.
        temperature: T.
        fitted: where T comes from, in words.
        kind: ``logits``, or ``probabilities`` where the model's own output is a softmax: then its logarithm is scaled.
    """

    costs: Costs
    temperature: float = 1.0
    fitted: str = "not fitted"
    kind: str = "logits"

    def probabilities(self, scores: ndarray) -> ndarray:
        """Of scores (n, classes), as float64."""
        return softmax(_logits(scores, self.kind) / self.temperature)

    def expected(self, scores: ndarray) -> ndarray:
        """Expected cost (n, decisions) of scores (n, classes)."""
        found: ndarray = self.probabilities(scores) @ self.costs.matrix
        return found

    def decide(self, scores: ndarray) -> ndarray:
        """Decision (n,) for scores (n, classes); of equal costs the first."""
        found: ndarray = self.expected(scores).argmin(-1)
        return found

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            **self.costs.to_dict(),
            "temperature": self.temperature,
            "fitted": self.fitted,
            "scores": self.kind,
        }


def fitted(costs: Costs, groups: Mapping[str, tuple[ndarray, Sequence[int]]], answers: ndarray) -> Rule:
    """The rule for an artifact.

    T minimises the negative log-likelihood (Guo et al., On Calibration of Modern Neural Networks, 2017).

    Args:
        costs: the cost matrix.
        groups: scores (n, classes) of the artifact and labels by name, those to prefer first.
        answers: scores (n, classes) of the artifact over everything known, to tell logits from probabilities.
    """
    kind = kind_of(answers)
    enough = {name: group for name, group in groups.items() if len(group[1]) >= FEWEST}
    if not enough:
        most = max((len(labels) for _, labels in groups.values()), default=0)
        return Rule(costs, 1.0, f"T = 1: {most} labelled examples are too few, {FEWEST} are needed", kind)
    name, (scores, labels) = next(iter(enough.items()))
    logits = _logits(scores, kind)
    what = f"{len(labels)} labelled examples of {name!r}"
    if (logits.argmax(-1) == labels).all():
        return Rule(costs, 1.0, f"T = 1: no error among {what}, which leaves T without a bound", kind)
    found = _lowest(logits, labels)
    return Rule(costs, found, f"T fitted to {what}, by negative log-likelihood", kind)


def kind_of(scores: ndarray) -> str:
    """Whether scores (n, classes) are ``logits``, or ``probabilities`` already."""
    sums = scores.sum(-1)
    return "probabilities" if scores.min() >= 0 and abs(sums - 1).max() < 1e-3 else "logits"


def _lowest(logits: ndarray, labels: Sequence[int]) -> float:
    import numpy as np
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        top = scaled.max(-1)
        total = np.log(np.exp(scaled - top[:, None]).sum(-1)) + top
        return float((total - scaled[rows, labels]).mean())

    found = minimize_scalar(loss, bounds=(math.log(LOWEST), math.log(HIGHEST)), method="bounded")
    return float(f"{math.exp(found.x):.6g}")  # so many digits as another machine finds too


def _logits(scores: ndarray, kind: str) -> ndarray:
    import numpy as np

    found = scores.astype(np.float64)
    return np.log(np.maximum(found, TINY)) if kind == "probabilities" else found


def softmax(logits: ndarray) -> ndarray:
    """Over the last axis."""
    import numpy as np

    powers = np.exp(logits - logits.max(-1, keepdims=True))
    found: ndarray = powers / powers.sum(-1, keepdims=True)
    return found
