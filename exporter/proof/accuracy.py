"""Accuracy on labelled data, and whether a drop can be told from chance at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...core.samples import Feed

ALPHA = 0.05


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of an artifact beside its reference, over the same samples.

    Attributes:
        n: how many samples.
        reference: share that the source gets right.
        found: share that the artifact gets right.
        max_drop: what may be lost.
        resolved: whether `n` is large enough to see a drop of that size.
        failed: whether the drop is larger; where `n` is too small, only a drop that chance can't explain counts.
    """

    n: int
    reference: float
    found: float
    max_drop: float
    resolved: bool
    failed: bool

    @property
    def note(self) -> str:
        """One sentence for reports."""
        text = f"top-1 {self.found:.1%} of {self.n}, reference {self.reference:.1%}"
        return text if self.resolved else f"{text}; n = {self.n} can't resolve {self.max_drop:g}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def score(
    classes: str, labels: Sequence[int], reference: Sequence[Feed], found: Sequence[Feed], max_drop: float
) -> Accuracy:
    """Score the outputs named `classes`, of shape (1, number of classes), against integer labels."""
    from scipy.stats import binomtest

    right = [(_top(a[classes]) == y, _top(b[classes]) == y) for a, b, y in zip(reference, found, labels, strict=True)]
    n = len(right)
    before, after = sum(a for a, _ in right) / n, sum(b for _, b in right) / n
    lost, won = sum(a and not b for a, b in right), sum(b and not a for a, b in right)
    resolved = n * max_drop >= 1
    # McNemar's exact test: among the samples on which the two differ, chance loses as many as it wins.
    by_chance = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue if lost + won else 1.0
    # Counted, not subtracted: 0.9 - 0.89 is more than 0.01 in floats.
    failed = lost - won > max_drop * n + 1e-9 and (resolved or bool(by_chance < ALPHA))
    return Accuracy(n, before, after, max_drop, resolved, failed)


def _top(array: Any) -> int:
    return int(array.argmax(-1).ravel()[0])
