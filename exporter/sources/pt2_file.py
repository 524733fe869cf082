"""A ``.pt2``: a program that torch.export saved. Torch's loader unpickles, so it runs in a process of its own."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import Unsupported, UsageError
from ...core.ids import file_sha256
from ...core.specs import TensorSpec
from ..convert import torch_operators
from ..proof import probes
from ..sizes import Size
from . import torch_model
from .job import Job
from .torch_args import evaluating


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Capture an exported program; what it keeps free stays free. See `torch_model.capture`."""
    import torch

    asked = Job.from_dict(job)
    torch_model.prepare()
    unknown = _unknown(asked.path)
    if unknown:
        todo = "export the .py that the program was made with, and use operators of torch's own there"
        raise Unsupported(asked.asked, "; ".join(unknown), todo)
    try:
        exported = torch.export.load(asked.path)
    except Exception as error:
        found = f"torch.export can't load it: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
        raise UsageError(asked.asked, found, f"save it with torch.export.save of torch {torch.__version__}") from error
    free = [size for size in _free(exported) if size.name not in asked.limits]
    fixed = {axis for size in asked.fixed for axis in size.axes}
    asked.free.extend(size for size in free if not fixed & set(size.axes))
    given = torch_model.Given(_by_name(exported), _example(asked, exported), [file_sha256(asked.path)])
    return torch_model.capture(asked, given)


def gaps(source: str, program: str) -> list[str]:
    """Operators without which torch can't load it."""
    return _unknown(source)


def _unknown(pt2: str) -> list[str]:
    """Nothing of a file that isn't one, or was written by another torch: its loader has a reason of its own."""
    try:
        return torch_operators.unknown(pt2, lambda operator: True, "torch")
    except (zipfile.BadZipFile, KeyError, ValueError):
        return []


def _by_name(exported: Any) -> Any:
    """The program as a module that takes its inputs by name, in eval mode: torch marks what it loads as training.

    Its graph is interpreted, because a capture of that keeps the modules which each node stood in.
    """
    import torch

    names = _names(exported)

    class ByName(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = exported.module()

        def forward(self, **tensors: Any) -> Any:
            with torch.fx.traceback.preserve_node_meta():
                return torch.fx.Interpreter(self.inner).run(*(tensors[name] for name in names))

    return evaluating(ByName())


def _names(exported: Any) -> list[str]:
    return [str(name) for name in exported.graph_signature.user_inputs]


def _values(exported: Any) -> dict[str, Any]:
    return {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}


def _free(exported: Any) -> list[Size]:
    """The free dimensions of an exported program, each with all axes that share its size."""
    values = _values(exported)
    axes: dict[str, list[str]] = {}
    symbols: dict[str, Any] = {}
    for name in _names(exported):
        for axis, size in enumerate(values[name].shape):
            if not isinstance(size, int):
                axes.setdefault(str(size), []).append(f"{name}.{axis}")
                symbols[str(size)] = size.node.expr
    found = []
    for text, places in axes.items():
        limits = exported.range_constraints.get(symbols[text])
        low = max(int(limits.lower), 1) if limits is not None else 1
        bounded = limits is not None and limits.upper.is_Integer
        found.append(Size(tuple(places), low, int(limits.upper) if bounded else max(64, 2 * low)))
    return found


def _example(job: Job, exported: Any) -> dict[str, Any]:
    """The example that the file holds, or one that the user describes."""
    import torch

    names = _names(exported)
    if job.inputs:
        arrays = samples.arrays(Path(job.inputs), f"--inputs {job.inputs}")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise UsageError(f"--inputs {job.inputs}", f"it has no {missing[0]}", f"it needs: {', '.join(names)}")
        return {name: torch.from_numpy(arrays[name]) for name in names}
    if exported.example_inputs and not job.shapes:
        args, kwargs = exported.example_inputs
        return dict(zip(names, [*args, *kwargs.values()], strict=True))
    values = _values(exported)
    specs = [
        TensorSpec(
            name,
            str(values[name].dtype).removeprefix("torch."),
            tuple(size if isinstance(size, int) else f"{name}.{i}" for i, size in enumerate(values[name].shape)),
            *job.ranges.get(name, (None, None)),
        )
        for name in names
    ]
    return {name: torch.from_numpy(array) for name, array in probes.example_feed(specs, job.shapes).items()}
