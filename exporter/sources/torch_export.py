"""torch.export on a flat module, with free dimensions; what it can't do, in the user's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported
from ...core.samples import Feed
from ...core.specs import TensorSpec
from .. import sizes
from . import user
from .job import Job


class DataDependent(Exception):
    """A branch or a size depends on the data of a tensor: a tracer would freeze it in silence. Carries our error."""

    def __init__(self, error: Unsupported) -> None:
        super().__init__(str(error))
        self.error = error


def export(job: Job, wrapper: Any, specs: Sequence[TensorSpec], example: Feed) -> Any:
    """The module as a ``torch.export.ExportedProgram``, with the dimensions free that the specs name.

    Raises:
        DataDependent: a branch depends on data, or the model needs a free dimension to be constant.
        Unsupported: torch.export can't capture it for another reason.
    """
    import torch

    dims = {
        size.name: torch.export.Dim(re.sub(r"\W", "_", size.name), min=size.low, max=size.high) for size in job.free
    }
    shapes = [{i: dims[axis] for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in specs]
    # torch.export takes sizes of 1 for constants: a free axis is traced with 2 or more.
    tracing = [
        replace(
            s,
            shape=tuple(
                max(have, 2) if isinstance(axis, str) else have
                for axis, have in zip(s.shape, example[s.name].shape, strict=True)
            ),
        )
        for s in specs
    ]
    feed = sizes.resized(example, tracing)
    tensors = tuple(torch.from_numpy(feed[spec.name].copy()) for spec in specs)
    try:
        return torch.export.export(wrapper, tensors, strict=False, dynamic_shapes=(tuple(shapes),) if dims else None)
    except Exception as error:
        refused = _refusal(job, error)
        if refused:
            raise DataDependent(refused) from error
        failure = user.user_error(job.path, "torch.export can't capture the model", error)
        raise Unsupported(failure.asked, failure.found, "the log has torch's own words") from error


def _refusal(job: Job, error: Exception) -> Unsupported | None:
    """Where no exporter may go on: the error to show."""
    text = str(error)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        own = user.own_frames(job.path, error)
        line = f"\n         {Path(job.path).name}:{own[-1].lineno}: {own[-1].line}" if own else ""
        todo = "compute both sides and choose with torch.where, or use torch.cond"
        return Unsupported(job.asked, f"a branch or a size depends on the data of a tensor{line}", todo)
    for size in job.free:
        name = re.sub(r"\W", "_", size.name)
        if f"Constraints violated ({name})" in text or f"marked {name} as dynamic" in text:
            constant = re.search(r"specialized it to be a constant \((\d+)\)", text)
            found = f"the model needs {size.name} to be {constant[1] if constant else 'of one size'}"
            todo = f"chain axes that are always equal ({size.name}=OTHER.AXIS=LOW:HIGH), or use --bucket"
            return Unsupported(f"--dynamic {size.name}={size.low}:{size.high}", found, todo)
    return None


def free_outputs(outputs: Sequence[TensorSpec], exported: Any, specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The output specs with free dimensions named: as the input's whose size they share, else ``OUTPUT.AXIS``."""
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    signature = exported.graph_signature
    symbols: dict[str, str] = {}
    for name, spec in zip(signature.user_inputs, specs, strict=True):
        for axis, size in zip(spec.shape, values[name].shape, strict=True):
            if isinstance(axis, str):
                symbols.setdefault(str(size), axis)
    named = []
    for name, spec in zip(signature.user_outputs, outputs, strict=True):
        sizes_ = getattr(values.get(name), "shape", spec.shape)
        shape = [
            have if isinstance(size, int) else symbols.get(str(size), f"{spec.name}.{i}")
            for i, (size, have) in enumerate(zip(sizes_, spec.shape, strict=True))
        ]
        named.append(replace(spec, shape=tuple(shape)))
    return named
