"""Expected hypervolume improvement in closed form, for any number of objectives that are normal and independent.

The part of the objectives' space that no point of the front dominates is cut into boxes. In each, the expected
improvement is a product over the objectives of differences of one-dimensional expected improvements.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
MOST_BOXES = 1500


def front(points: Array) -> Array:
    """The points (n × m) that no other dominates, each once, by the first objective."""
    rest = np.unique(points, axis=0) if len(points) else points
    kept: list[Array] = []
    while len(rest):  # in lexical order none is dominated by a later one
        kept.append(rest[0])
        rest = rest[(rest < rest[0]).any(axis=1)]
    return np.array(kept).reshape(len(kept), points.shape[1])


def boxes(points: Array, reference: Array) -> tuple[Array, Array]:
    """What lies below the reference and isn't dominated: lower and upper corners (k × m); −inf at the outer ends.

    A front of many points is thinned until the boxes are few enough.
    """
    inside = front(points[(points < reference).all(axis=1)])
    while True:
        found = _boxes(inside, reference)
        if len(found) <= MOST_BOXES:
            return found[:, 0], found[:, 1]
        inside = inside[:: 1 + len(found) // MOST_BOXES]


def _boxes(points: Array, reference: Array) -> Array:
    if len(reference) == 1:
        upper = points.min() if len(points) else reference[0]
        return np.array([[[-np.inf], [upper]]])
    ends = np.concatenate([[-np.inf], np.unique(points[:, -1]), reference[-1:]])
    found = []
    for low, high in itertools.pairwise(ends):
        below = front(points[points[:, -1] <= low][:, :-1])
        part = _boxes(below, reference[:-1])
        slab = np.broadcast_to(np.array([[low], [high]]), (len(part), 2, 1))
        found.append(np.concatenate([part, slab], axis=2))
    return np.concatenate(found)


def expected(mean: Array, deviation: Array, lower: Array, upper: Array) -> Array:
    """Expected hypervolume improvement of m candidates.

    Args:
        mean: m × objectives.
        deviation: the same; 0 where a value is known.
        lower: corners of boxes (k × objectives).
        upper: the same.

    Source: the two-dimensional case is that of Emmerich, Yang, Deutz (2020), "Infill criteria for multiobjective
    Bayesian optimization"; the product form holds for each box.
    """
    total: Array | None = None
    for j in range(mean.shape[1]):
        ends, inverse = np.unique(np.concatenate([lower[:, j], upper[:, j]]), return_inverse=True)
        below = _below(mean[:, j], deviation[:, j], ends)
        part = below[:, inverse[len(lower) :]] - below[:, inverse[: len(lower)]]
        total = part if total is None else np.multiply(total, part, out=total)
    return np.zeros(len(mean)) if total is None else total.sum(axis=1)


def _below(mean: Array, deviation: Array, ends: Array) -> Array:
    """E[(end − y)+] for each candidate and end; 0 at −inf."""
    gap = np.where(np.isinf(ends), 0.0, ends)[None] - mean[:, None]
    spread = np.maximum(deviation, 1e-12)[:, None]
    z = gap / spread
    found = gap * ndtr(z) + spread * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.where(np.isinf(ends)[None], 0.0, np.maximum(found, 0.0))
