"""For each tensor of the reference the tensors of the artifact that hold the same numbers, by SQNR in dB.

Compared are tensors of one element count, as they are or in another layout (channels last against first), never in
any other order: a swapped axis must show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..parity import CEILING_DB
from .record import FIRST, HUGE, LAST, LAYOUTS, SWAP, Node, Tap

if TYPE_CHECKING:
    from numpy import ndarray

_ROUGH = 1024
"""Numbers of each tensor that the first look takes."""
_KEPT = 4
"""Tensors of the artifact that a second look is worth, for each of the reference."""


@dataclass
class Matches:
    """Who resembles whom.

    Attributes:
        best: for each reference node the artifact's nodes with their SQNR in dB, the best first.
        reverse: for each artifact node its best SQNR; None where nothing has its size.
    """

    best: list[list[tuple[int, float]]] = field(default_factory=list)
    reverse: list[float | None] = field(default_factory=list)

    def owner(self) -> list[bool]:
        """Whether no other reference node resembles a node's best match more."""
        return [bool(pairs) and pairs[0][1] >= (self.reverse[pairs[0][0]] or 0) - 1 for pairs in self.best]

    def own(self) -> list[float | None]:
        """The best SQNR of each reference node."""
        return [pairs[0][1] if pairs else None for pairs in self.best]


def match(reference: Tap, artifact: Tap, layouts: bool) -> Matches:
    """Hold every tensor of one tap against those of its size in the other.

    Args:
        reference: recorded with layouts.
        artifact: recorded on the same samples.
        layouts: whether the artifact's converter moves channels.
    """
    found = Matches([[] for _ in reference.nodes], [None for _ in artifact.nodes])
    theirs = _by_size(artifact)
    for size, ours in _by_size(reference).items():
        if size in theirs:
            _match_group(reference, artifact, ours, theirs[size], layouts, found)
    return found


def paired(reference: Tap, artifact: Tap) -> Matches:
    """Two taps of one file, in different settings: every tensor with that of its name."""
    theirs = {node.name: j for j, node in enumerate(artifact.nodes)}
    found = Matches([[] for _ in reference.nodes], [None for _ in artifact.nodes])
    for i, node in enumerate(reference.nodes):
        j = theirs.get(node.name)
        if j is not None and reference.tensor(i) and artifact.tensor(j):
            found.reverse[j] = sqnr_db(reference.tensor(i), artifact.tensor(j))
            found.best[i].append((j, found.reverse[j] or 0.0))
    return found


def _by_size(tap: Tap) -> dict[tuple[int, ...], list[int]]:
    groups: dict[tuple[int, ...], list[int]] = {}
    for i in range(len(tap.nodes)):
        moments = tap.moments(i)
        if moments:
            groups.setdefault(tuple(int(m[-1]) for m in moments), []).append(i)
    return groups


def _match_group(
    reference: Tap, artifact: Tap, ours: Sequence[int], theirs: Sequence[int], layouts: bool, found: Matches
) -> None:
    import numpy as np

    rows = [(i, name) for i in ours for name in ("", *_possible(reference.nodes[i], layouts))]
    rough = _rough([reference.tensor(i, name) for i, name in rows], [artifact.tensor(j) for j in theirs])
    for (i, layout), row in zip(rows, rough, strict=True):
        for k in np.argsort(-row, kind="stable")[:_KEPT]:
            j = theirs[int(k)]
            if layout and not _fits(reference.nodes[i].shape, layout, artifact.nodes[j].shape):
                continue
            db = sqnr_db(reference.tensor(i, layout), artifact.tensor(j))
            found.best[i].append((j, db))
            before = found.reverse[j]
            found.reverse[j] = db if before is None else max(before, db)
    for i in ours:
        # Of those that are equally near the one that was computed first: later ones are copies.
        found.best[i].sort(key=lambda pair: (-round(pair[1]), pair[0]))


def _possible(node: Node, layouts: bool) -> Iterable[str]:
    return LAYOUTS.get(len(node.shape), {}) if layouts else ()


def _fits(ours: Sequence[int], layout: str, theirs: Sequence[int]) -> bool:
    """Whether a shape can be ours in that layout: the channels stand where it says."""
    if layout in (LAST, SWAP):
        return len(theirs) >= 2 and theirs[-1] == ours[1]
    return layout == FIRST and len(theirs) >= 3 and theirs[1] == ours[3]


def _rough(ours: Sequence[list[ndarray]], theirs: Sequence[list[ndarray]]) -> ndarray:
    """SQNR in dB of the first numbers of each pair, as a matrix."""
    import numpy as np

    a, b = (np.stack([_head(tensor) for tensor in side]) for side in (ours, theirs))
    power = (a**2).sum(1)[:, None]
    noise = power + (b**2).sum(1)[None, :] - 2 * a @ b.T
    floor = np.maximum(power, 1e-300) * 1e-15
    # Noise below the floor is the subtraction's own rounding.
    answer: ndarray = 10 * np.log10(np.maximum(power, 1e-300) / np.maximum(noise, floor))
    return answer


def _head(tensor: Sequence[ndarray]) -> ndarray:
    import numpy as np

    flat = np.concatenate([part[:_ROUGH] for part in tensor]).astype(np.float64)
    return np.where(_usual(flat), flat, 0)


def _usual(array: ndarray) -> ndarray:
    import numpy as np

    answer: ndarray = np.isfinite(array) & (np.abs(array) < HUGE)
    return answer


def sqnr_db(want: Sequence[ndarray], have: Sequence[ndarray]) -> float:
    """SQNR in dB of the worse sample, against the power over all; infinities must stand at the same places."""
    import numpy as np

    noises, powers = [], []
    for a, b in zip(want, have, strict=True):
        usual = _usual(a)
        if (usual != _usual(b)).any():
            return -CEILING_DB
        x, y = a[usual].astype(np.float64), b[usual].astype(np.float64)
        noises.append(float(np.mean((x - y) ** 2)) if x.size else 0.0)
        powers.append(float(np.mean(x**2)) if x.size else 0.0)
    noise, power = max(noises), sum(powers) / len(powers)
    if noise == 0:
        return CEILING_DB
    return max(min(10 * math.log10(power / noise), CEILING_DB), -CEILING_DB) if power > 0 else -CEILING_DB
