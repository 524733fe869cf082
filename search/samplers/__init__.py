"""Samplers: what to evaluate next. One contract for all: `base.Sampler`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ...core.errors import MissingPart, UsageError
from ..space import Space
from .base import Nearest, Sampler

__all__ = ["NAMES", "Nearest", "Sampler", "make"]

DEFAULT = "model"
_CLASSES = {
    "model": "model:Model",
    "random": "plain:Random",
    "exhaustive": "plain:Exhaustive",
    "tpe": "optuna:Tpe",
    "tpe-independent": "optuna:TpeIndependent",
    "nsga2": "optuna:Nsga2",
}
NAMES = tuple(_CLASSES)


def make(
    space: Space, objectives: Sequence[str], name: str | None = None, budget: int | None = None, **options: Any
) -> Sampler:
    """A sampler by name.

    Args:
        space: to search.
        objectives: names of costs to minimise.
        name: one of `NAMES`. Without, the default; or each candidate in turn where the space is no larger than the
            budget.
        budget: how many candidates may be evaluated.
        options: of `Sampler`.

    Raises:
        UsageError: no such name, or a space that can't be enumerated.
        MissingPart: the library behind it is not installed.
    """
    if name is None:
        small = budget is not None and space.size is not None and space.size <= budget
        name = "exhaustive" if small else DEFAULT
    if name not in _CLASSES:
        raise UsageError(f"the sampler {name!r}", "there is none of this name", f"one of: {', '.join(NAMES)}")
    if name == "exhaustive" and space.size is None:
        raise UsageError("the sampler 'exhaustive'", "a continuous range", "give each range a step, or take another")
    module, _, cls = _CLASSES[name].partition(":")
    try:
        made = getattr(import_module(f".{module}", __name__), cls)(space, objectives, **options)
    except ModuleNotFoundError as error:
        raise MissingPart(f"the sampler {name!r}", str(error), "pip install optuna") from None
    if not isinstance(made, Sampler):
        raise TypeError(name)
    return made
