"""Another layout, or preprocessing, at the boundary of a TensorFlow function. Runs in a TensorFlow process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...core.specs import TensorSpec
from .boundary import TO, Boundary, affine

Call = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def changed(edge: Boundary, call: Call) -> Call:
    """A function over tensors by name, changed accordingly."""
    import tensorflow as tf

    def turned(tensors: Mapping[str, Any], start: str, end: str) -> dict[str, Any]:
        if start == end:
            return dict(tensors)
        return {n: tf.transpose(t, TO[end]) if len(t.shape) == 4 else t for n, t in tensors.items()}

    def embedded(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        assert edge.embed
        scale, shift = affine(edge.embed)
        ready = {name: tf.cast(pixels, tf.float32) * scale + shift for name, pixels in feed.items()}
        return call(turned(ready, "nhwc", edge.own))

    def laid_out(feed: Mapping[str, Any]) -> Mapping[str, Any]:
        return turned(call(turned(feed, edge.layout, edge.own)), edge.own, edge.layout)

    if edge.embed:
        return embedded
    return laid_out if edge.layout else call


def specs(edge: Boundary, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The inputs of the changed function; an axis without a size is called ``INPUT.AXIS``, as it stands then."""
    layout = "nhwc" if edge.embed else edge.layout
    found = []
    for spec in inputs:
        if len(spec.shape) == 4 and layout not in ("", edge.own):
            sizes = [spec.shape[axis] for axis in TO[layout]]
            shape = tuple(size if isinstance(size, int) else f"{spec.name}.{i}" for i, size in enumerate(sizes))
            spec = replace(spec, shape=shape)
        found.append(replace(spec, dtype="uint8", low=0, high=256) if edge.embed else spec)
    return found
