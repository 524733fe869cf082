"""Runs in a child: a study's code, be it the user's own or the family's, behind one interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ChildFailed, UsageError
from ...exporter.sources import user
from . import elastic

if TYPE_CHECKING:
    from numpy import ndarray

PARTS = ("train", "valid", "test")


class Code:
    """What builds, feeds and trains a candidate's model.

    Args:
        study: `StudyFile.for_child`.
    """

    def __init__(self, study: Mapping[str, Any]) -> None:
        self.study = study
        self.family: dict[str, Any] | None = study["family"]
        self.path = Path(study["code"]) if study["code"] else None
        self.module = user.load(self.path) if self.path else None

    def has(self, name: str) -> bool:
        """Whether the user's file defines this function."""
        return name in self.study["functions"]

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the user's; its errors become ours, with their lines.

        Raises:
            ChildFailed: it raises an error.
        """
        function: Callable[..., Any] = getattr(self.module, name)
        return user.call(str(self.path), name, lambda: function(*args))

    def build(self, values: Mapping[str, Any]) -> Any:
        """A candidate's module in eval mode, as it is before training; the same weights each time.

        Raises:
            UsageError: it is no module.
            ChildFailed: the user's code raises an error.
        """
        import torch

        torch.manual_seed(0)
        if self.family is not None:
            return elastic.build(values, self.family).eval()
        model = self.call("build", dict(values))
        if not isinstance(model, torch.nn.Module):
            found = f"it returns {type(model).__module__}.{type(model).__qualname__}"
            raise UsageError(f"build() of {self.path}", found, "return a torch.nn.Module")
        return model.eval()

    def args(self, values: Mapping[str, Any]) -> Any:
        """Example inputs, as the exporter's sources take them."""
        if self.family is not None:
            return elastic.example(self.family)
        return self.call("get_args", *self.given_to_get_args(values))

    def given_to_get_args(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the user's ``get_args`` takes: the candidate, or nothing."""
        takes = inspect.signature(self.module.get_args).parameters  # type: ignore[union-attr]
        return (dict(values),) if takes else ()

    @cached_property
    def declared(self) -> tuple[list[str] | None, dict[str, Any] | None]:
        """What ``get_labels()`` and ``get_preprocess()`` say."""
        if self.module is None:
            return None, None
        labels, preprocess = user.declared(self.module, str(self.path))
        return labels, preprocess.to_dict() if preprocess else None

    def data(self, part: str, values: Mapping[str, Any] | None = None) -> tuple[ndarray, ndarray]:
        """Inputs (n, ...) as float32, or as whole numbers where they are such, and labels (n,) of one part of the data.

        Args:
            part: one of `PARTS`.
            values: the candidate, where ``load_data`` takes one: the models of a pool may want different inputs.

        Raises:
            UsageError: ``load_data`` raises an error, or gives something else.
        """
        import numpy as np

        asked = f"load_data({part!r}) of {self.path}"
        try:
            found = self.call("load_data", part, *([] if values is None else [dict(values)]))
        except ChildFailed as error:  # no candidate's fault: the search can't go on
            raise UsageError(asked, error.found, error.todo) from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise UsageError(asked, f"it returns {type(found).__qualname__}", "return inputs and labels: two arrays")
        inputs, labels = (np.asarray(array) for array in found)
        if inputs.dtype.kind not in "fiu" or not len(inputs) or labels.shape != inputs.shape[:1]:
            text = f"{inputs.dtype}{list(inputs.shape)} and {labels.dtype}{list(labels.shape)}"
            raise UsageError(asked, f"it returns {text}", "inputs (n, ...) and n labels, at least one of each")
        if labels.dtype.kind not in "iu":
            raise UsageError(asked, f"labels are {labels.dtype}", "labels are whole numbers: the classes' indices")
        if self.family is not None:
            self._check_family(inputs, labels, asked)
        if inputs.dtype.kind == "f":
            inputs = inputs.astype(np.float32, copy=False)
        return inputs, labels.astype(np.int64, copy=False)

    def _check_family(self, inputs: ndarray, labels: ndarray, asked: str) -> None:
        """Refuse data that the family's models, as its options have them, don't take."""
        options = self.family or {}
        size, classes = options["size"], options["classes"]
        wanted = (options["channels"], size, size)
        if inputs.shape[1:] != wanted or labels.min() < 0 or labels.max() >= classes:
            found = f"inputs {inputs.dtype}{list(inputs.shape)}, labels from {labels.min()} to {labels.max()}"
            takes = f"it takes [n, {', '.join(map(str, wanted))}] and labels from 0 to {classes - 1}"
            raise UsageError(asked, found, f"set channels, size and classes of the family: {takes}")
