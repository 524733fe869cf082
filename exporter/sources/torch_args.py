"""A torch module's arguments and results, nested as they may be, as a flat list of named tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import UsageError
from .job import Job


def flattened(job: Job, args: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Paths and values of the example's leaves, and how to build the model's arguments from them again."""
    import torch
    from torch.utils import _pytree

    if isinstance(args, torch.Tensor):
        args = (args,)
    if not isinstance(args, Mapping | Sequence) or isinstance(args, str):
        found = f"it returns {type(args).__qualname__}"
        raise UsageError(f"get_args() of {job.path}", found, "return a tuple of tensors, or a dict by parameter name")
    args = dict(args) if isinstance(args, Mapping) else tuple(args)
    pairs, structure = _pytree.tree_flatten_with_path(args)
    return [(".".join(_key(key) for key in path), value) for path, value in pairs], structure


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


def named(job: Job, model: Any, args: list[tuple[str, Any]]) -> tuple[list[str], tuple[Any, ...]]:
    """Names and tensors of the example inputs: a parameter's name, with what lies below it after a dot."""
    import torch

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    names = []
    for path, value in args:
        head, dot, rest = path.partition(".")
        if head.isdecimal():
            head = known[int(head)] if int(head) < len(known) else f"input_{head}"
        name = f"{head}{dot}{rest}"
        if not isinstance(value, torch.Tensor):
            todo = "return tensors only; fix other arguments inside the model"
            raise UsageError(f"get_args() of {job.path}", f"{name} is {type(value).__qualname__}, not a tensor", todo)
        names.append(name)
    return names, tuple(value for _, value in args)


def flat(model: Any, structure: Any) -> Any:
    """The model with tensors in and a flat tuple of tensors out; the first run fills its `output_names`."""
    import torch
    from torch.utils import _pytree

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.output_names: list[str] = []

        def forward(self, *tensors: Any) -> Any:
            args = _pytree.tree_unflatten(tensors, structure)
            outputs = self.model(**args) if isinstance(args, dict) else self.model(*args)
            pairs, _ = _pytree.tree_flatten_with_path(outputs)
            if not self.output_names:
                self.output_names = [_output_name(path) for path, _ in pairs]
            return tuple(value for _, value in pairs)

    return evaluating(Flat())


def evaluating(module: Any) -> Any:
    """The module in eval mode; a program out of a ``.pt2`` refuses a call of eval() itself."""
    for part in module.modules():
        part.training = False
    return module


def _output_name(path: Sequence[Any]) -> str:
    """``output`` for a lone tensor, a dict's key, ``output_0`` for a tuple's first."""
    if not path:
        return "output"
    name = ".".join(_key(key) for key in path)
    return f"output_{name}" if name[0].isdigit() else name
