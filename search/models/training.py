"""Runs in a child: training that is cut into epochs, each kept, and judged on examples that it has not seen."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import ChildFailed
from ..studyfile import Budget

if TYPE_CHECKING:
    from numpy import ndarray

DIVERGED = "diverged"
"""The kind of a `ChildFailed` whose training ran away."""
_FAR = 5.0
"""An epoch's mean loss beyond so many times that of guessing is divergence."""
_WARM = 0.1
"""The share of steps in which the learning rate rises."""
_AT_ONCE = 256


@dataclass
class Course:
    """How a training went, as data.

    Attributes:
        epoch: how many are done.
        seconds: spent in them, over all processes.
        loss: mean of each epoch.
    """

    epoch: int = 0
    seconds: float = 0.0
    loss: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {"epochs": self.epoch, "seconds": round(self.seconds, 3), "loss": [round(x, 6) for x in self.loss]}


def prepare(budget: Budget) -> None:
    """What every training process does first: threads, seed, and no algorithm whose result depends on chance."""
    import torch

    torch.set_num_threads(budget.threads)
    torch.manual_seed(budget.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def run(
    model: Any, data: tuple[ndarray, ndarray], budget: Budget, state: Path, step: Callable[[Any, Any], float]
) -> Course:
    """Train by AdamW under a warm-up and a cosine; go on at the last epoch that `state` holds.

    A training that was ended and goes on gives the same weights as one that wasn't: each epoch has a seed of its own.
    (Batch norm can't learn from one example: a last batch of one is left out.)

    Args:
        model: its parameters are trained.
        data: inputs (n, ...) and labels (n,).
        budget: epochs, batch, learning rate, seed.
        state: a file that holds the last epoch; replaced whole after each.
        step: takes inputs and labels of a batch, leaves the gradients, gives the loss.

    Raises:
        ChildFailed: of kind `DIVERGED`.
    """
    import torch

    inputs, labels = (torch.from_numpy(array) for array in data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.lr, weight_decay=0.01)
    course = _resume(state, model, optimizer)
    guessing = math.log(max(int(labels.max()) + 1, 2))
    model.train()
    while course.epoch < budget.epochs:
        begin = time.monotonic()
        losses = _epoch(course.epoch, optimizer, inputs, labels, budget, step)
        course.loss.append(sum(losses) / len(losses))
        course.epoch += 1
        course.seconds += time.monotonic() - begin
        _check(course.loss[-1], _FAR * guessing, course.epoch)
        _keep(state, model, optimizer, course)
    model.eval()
    return course


def _epoch(
    epoch: int, optimizer: Any, inputs: Any, labels: Any, budget: Budget, step: Callable[[Any, Any], float]
) -> list[float]:
    """The loss of each batch."""
    import torch

    torch.manual_seed(budget.seed * 100_003 + epoch)
    rows = [part for part in torch.randperm(len(labels)).split(budget.batch) if len(part) > 1 or len(labels) == 1]
    losses = []
    for i, part in enumerate(rows):
        for group in optimizer.param_groups:
            group["lr"] = budget.lr * _rate((epoch + (i + 1) / len(rows)) / budget.epochs)
        optimizer.zero_grad(set_to_none=True)
        losses.append(step(_laid(inputs[part]), labels[part]))
        _check(losses[-1], sys.float_info.max, epoch + 1)
        optimizer.step()
    return losses


def _laid(inputs: Any) -> Any:
    """Pictures with their channels last in memory: a step of depthwise convolutions takes half the time."""
    import torch

    return inputs.to(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _rate(share: float) -> float:
    return share / _WARM if share < _WARM else 0.5 * (1 + math.cos(math.pi * (share - _WARM) / (1 - _WARM)))


def _check(loss: float, most: float, epoch: int) -> None:
    if not loss <= most:  # NaN too
        found = f"the training diverged: loss {loss:.4g} in epoch {epoch}"
        raise ChildFailed("a candidate's training", found, "a lower learning rate may help", kind=DIVERGED)


def _keep(state: Path, model: Any, optimizer: Any, course: Course) -> None:
    import torch

    part = state.with_suffix(".part")
    told = {"epoch": course.epoch, "seconds": course.seconds, "loss": course.loss}
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "course": told}, part)
    os.replace(part, state)
    print(f"epoch {course.epoch}: loss {course.loss[-1]:.4f}, {course.seconds:.1f} s", flush=True)


def _resume(state: Path, model: Any, optimizer: Any) -> Course:
    import torch

    state.parent.mkdir(parents=True, exist_ok=True)
    if not state.exists():
        return Course()
    held = torch.load(state, map_location="cpu", weights_only=True)
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    return Course(**held["course"])


def plain_step(model: Any) -> Callable[[Any, Any], float]:
    """Cross-entropy."""
    import torch

    def step(inputs: Any, labels: Any) -> float:
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        return float(loss.detach())

    return step


def scores(model: Any, inputs: ndarray) -> ndarray:
    """What the model answers, (n, classes) as float32.

    Raises:
        ChildFailed: of kind `DIVERGED`, where an answer isn't finite.
    """
    import numpy as np
    import torch

    model.eval()
    with torch.no_grad():
        found = [model(torch.from_numpy(part)).numpy() for part in _parts(inputs)]
    answers: ndarray = np.concatenate(found).astype(np.float32)
    if not np.isfinite(answers).all():
        raise ChildFailed("a candidate's training", "the trained model answers NaN or infinity", kind=DIVERGED)
    return answers


def _parts(inputs: ndarray) -> Iterable[ndarray]:
    for i in range(0, len(inputs), _AT_ONCE):
        yield inputs[i : i + _AT_ONCE]


def judged(model: Any, data: tuple[ndarray, ndarray], out: Path) -> dict[str, Any]:
    """Write a model's `scores` and `labels` of all examples into an ``.npz``; their accuracy and number."""
    import numpy as np

    inputs, labels = data
    found = scores(model, inputs)
    part = out.with_suffix(".part")
    with open(part, "wb") as file:
        np.savez(file, scores=found, labels=labels)
    os.replace(part, out)
    return {"accuracy": float((found.argmax(-1) == labels).mean()), "n": len(labels)}


def recalibrate(model: Any, inputs: ndarray, batch: int, batches: int = 8) -> None:
    """Take batch norms' statistics anew from the first batches of these inputs: inherited ones are of another net."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    model.train()
    with torch.no_grad():
        for i in range(min(batches, len(inputs) // batch)):
            model(torch.from_numpy(inputs[i * batch : (i + 1) * batch]))
    model.eval()
