"""Probe inputs: what a model and its artifact are both asked, so that their answers can be held together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...core.errors import UsageError
from ...core.specs import TensorSpec
from .parity import CONSTANT

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

SEEDS = 3
SCALES = (0.1, 0.01, 10.0, 100.0)
"""Of noise, in the example's, where the answers to that of its own scale prove nothing."""
CORNERS = (1, 2, 3)
"""Sizes that a free dimension without declared limits is tried with, besides that of the example."""

Named = list[tuple[str, "Feed"]]


def example_feed(
    inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], limits: Mapping[str, Sequence[int]] = {}
) -> Feed:
    """Example inputs where the user gave shapes and ranges alone; a free dimension with limits takes the lowest.

    Raises:
        UsageError: a free dimension without a shape, or integers without a range.
    """
    feed: Feed = {}
    for spec in inputs:
        shape = tuple(
            limits[a][0] if isinstance(a, str) and a in limits else a for a in shapes.get(spec.name, spec.shape)
        )
        free = [axis for axis in shape if isinstance(axis, str)]
        if free:
            todo = f"give its shape, such as --shape {spec.name}={'x'.join('1' for _ in shape).replace('x', ',')}"
            raise UsageError(f"input {spec}", f"the free dimension {free[0]} has no size to try", todo)
        feed[spec.name] = _draw(spec, tuple(int(axis) for axis in shape), 0, None)
    return feed


def build(
    inputs: Sequence[TensorSpec],
    example: Feed,
    real: Sequence[Feed] = (),
    limits: Mapping[str, Sequence[int]] = {},
) -> tuple[Named, Named]:
    """Main samples and edge cases for a model with these inputs.

    Main: the example, noise of several seeds in the example's range, real samples. Edges: zeros, the extremes of the
    range, and the ends of each free dimension's `limits`, alone and all together.
    """
    main: Named = [("example", dict(example))]
    main += [(f"noise {seed}", _noise(inputs, example, seed + 1, 1.0)) for seed in range(SEEDS)]
    main += [(f"real {i}", dict(feed)) for i, feed in enumerate(real)]
    edges: Named = []
    for name, value in zip(CONSTANT, (0.0, -1.0, 1.0), strict=True):
        edges.append((name, {spec.name: _constant(spec, example[spec.name], value) for spec in inputs}))
    edges += _corners(inputs, example, limits)
    return main, edges


def rescaled(inputs: Sequence[TensorSpec], example: Feed, main: Named, scale: float) -> Named:
    """The main samples with noise of another scale: floats times `scale`, bytes nearer to the middle of their range."""
    return [
        (f"{name} x {scale:g}", _noise(inputs, example, int(name.removeprefix("noise ")) + 1, scale))
        if name.startswith("noise ")
        else (name, feed)
        for name, feed in main
    ]


def _noise(inputs: Sequence[TensorSpec], example: Feed, seed: int, scale: float) -> Feed:
    return {s.name: _draw(s, example[s.name].shape, seed, example[s.name], scale) for s in inputs}


def _draw(spec: TensorSpec, shape: tuple[int, ...], seed: int, like: ndarray | None, scale: float = 1.0) -> ndarray:
    import numpy as np

    # The input's name is part of the seed: two inputs of one shape must not be equal.
    rng = np.random.default_rng([seed, *spec.name.encode()])
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        centre, spread = 0.0, 1.0
        if like is not None and like.size > 1 and float(like.std()) > 0:
            centre, spread = float(like.mean()), float(like.std())
        return ((rng.standard_normal(shape) * spread + centre) * scale).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    low, high = _integer_range(spec, like)
    if dtype.itemsize == 1 and scale < 1:
        cut = int((high - low) * (1 - scale) / 2)
        low, high = low + cut, high - cut
    return rng.integers(low, high, shape).astype(dtype)


def _integer_range(spec: TensorSpec, like: ndarray | None) -> tuple[int, int]:
    import numpy as np

    if spec.low is not None and spec.high is not None:
        return spec.low, spec.high
    if like is not None and like.size:
        return int(like.min()), int(like.max()) + 1
    if np.dtype(spec.dtype).itemsize == 1:
        info = np.iinfo(spec.dtype)
        return int(info.min), int(info.max) + 1
    todo = f"declare it, such as --range {spec.name}=0:30000, or give --inputs FILE.npz"
    raise UsageError(f"input {spec}", "which integers it takes is not known", todo)


def _constant(spec: TensorSpec, like: ndarray, side: float) -> ndarray:
    """All zeros (side 0), or the lowest (-1) or highest (1) value of the range."""
    import numpy as np

    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.full(like.shape, side * float(np.abs(like).max() or 1.0), dtype)
    if dtype.kind == "b":
        return np.full(like.shape, side > 0, dtype)
    low, high = _integer_range(spec, like)
    value = min(max(0, low), high - 1) if side == 0 else (low if side < 0 else high - 1)
    return np.full(like.shape, value, dtype)


def _corners(inputs: Sequence[TensorSpec], example: Feed, limits: Mapping[str, Sequence[int]]) -> Named:
    names = sorted({a for spec in inputs for a in spec.shape if isinstance(a, str)})
    tried: list[dict[str, int]] = [{name: size} for name in names for size in limits.get(name, CORNERS)]
    if len(names) > 1:
        tried += [{name: limits.get(name, CORNERS)[end] for name in names} for end in (0, -1)]
    return [
        (",".join(f"{name}={size}" for name, size in corner.items()), _cornered(inputs, example, corner))
        for corner in tried
    ]


def _cornered(inputs: Sequence[TensorSpec], example: Feed, corner: Mapping[str, int]) -> Feed:
    feed: Feed = {}
    for spec in inputs:
        have = example[spec.name].shape
        shape = tuple(corner.get(a, h) if isinstance(a, str) else h for a, h in zip(spec.shape, have, strict=True))
        feed[spec.name] = _draw(spec, shape, sum(corner.values()), example[spec.name])
    return feed
