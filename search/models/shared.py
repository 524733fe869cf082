"""Runs in a child: one training for the whole elastic family, and what a candidate inherits of it.

Sandwich rule and in-place distillation after Yu and Huang, "Universally Slimmable Networks", ICCV 2019; centres of
larger kernels and a depth's first blocks after Cai et al., "Once-for-All", ICLR 2020.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...core.ids import canonical_json
from . import elastic

RANDOM = 2
"""Candidates a step between the largest and the smallest."""


def cut(tensor: Any, shape: Sequence[int]) -> Any:
    """The part of a larger weight that a smaller one inherits: its first channels, the centre of its kernel."""
    for axis, size in enumerate(shape):
        start = (tensor.shape[axis] - size) // 2 if axis >= 2 else 0
        tensor = tensor.narrow(axis, start, size)
    return tensor


def inherited(model: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    """For each tensor of a smaller model, its part of the largest one's."""
    return {name: cut(whole[name], tensor.shape) for name, tensor in model.state_dict().items()}


def supernet(options: elastic.Options) -> Any:
    """The largest candidate, of which every other one is a part."""
    import torch

    torch.manual_seed(0)
    return elastic.build(elastic.extreme(options, True), options)


def sandwich(whole: Any, options: elastic.Options) -> Callable[[Any, Any], float]:
    """A training step: the largest learns from the labels; the smallest and some between learn from the largest."""
    import torch
    from torch.nn.functional import cross_entropy, log_softmax, softmax

    choices = elastic.space(options)
    smallest = elastic.extreme(options, False)

    @lru_cache(maxsize=64)
    def shell(text: str) -> Any:
        """A candidate without weights of its own."""
        import json

        with torch.device("meta"):
            return elastic.build(json.loads(text), options).train()

    def draw() -> dict[str, Any]:
        # From torch's generator, which each epoch seeds: a training that goes on draws what it would have drawn.
        source = random.Random(int(torch.randint(1 << 31, ())))
        return {name: source.choice(values) for name, values in choices.items()}

    def step(inputs: Any, labels: Any) -> float:
        answers = whole(inputs)
        loss = cross_entropy(answers, labels)
        loss.backward()
        target = softmax(answers.detach(), -1)
        tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
        for values in [smallest, *(draw() for _ in range(RANDOM))]:
            part = shell(canonical_json(values))
            found = torch.func.functional_call(part, inherited(part, tensors), (inputs,))
            (-(target * log_softmax(found, -1)).sum(-1).mean()).backward()
        return float(loss.detach())

    return step
