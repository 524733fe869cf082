"""What stands between a user's tensors and the model: the layout of pictures, and preprocessing inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...core.errors import UsageError
from ..images import Preprocess
from .job import Job
from .torch_args import evaluating

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class Boundary:
    """How a torch module's boundary differs from what its file says.

    Attributes:
        layout: ``nhwc`` where inputs and outputs of four axes have their channels last; empty to leave them.
        embed: preprocessing that goes into the graph, which then takes uint8 pixels (1, H, W, 3); None for none.
        preprocess: how pictures become inputs now.
    """

    layout: str = ""
    embed: Preprocess | None = None
    preprocess: Preprocess | None = None

    @classmethod
    def make(cls, job: Job, preprocess: Preprocess | None, tensors: Sequence[Any]) -> Boundary:
        """From what was asked.

        Raises:
            UsageError: there is no preprocessing to embed, or no picture to lay out otherwise.
        """
        pictures = [t for t in tensors if t.ndim == 4]
        if job.layout and not pictures:
            raise UsageError(f"--io-layout {job.layout}", f"{job.path} has no input of four axes", "leave it away")
        if job.embed:
            if preprocess is None:
                raise UsageError("--embed-preprocessing", f"{job.path} declares none", "add get_preprocess() to it")
            if len(tensors) != 1 or not pictures or job.layout == "nchw":
                todo = "it takes pixels as (1, H, W, 3), so it needs a model of one picture and no --io-layout nchw"
                raise UsageError("--embed-preprocessing", "the model can't take it", todo)
            plain = replace(
                preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, range=(0.0, 255.0), layout="NHWC", dtype="uint8"
            )
            return cls("", preprocess, plain)
        # A torch module takes NCHW, so asking for that changes nothing.
        layout = "nhwc" if job.layout == "nhwc" else ""
        if layout and preprocess:
            preprocess = replace(preprocess, layout="NHWC")
        return cls(layout, None, preprocess)

    def wrap(self, module: Any) -> Any:
        """A flat module, changed accordingly."""
        if self.embed:
            return _embedded(module, self.embed)
        return _last(module) if self.layout else module

    def outside(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """What the user's own code gives for the module, as the changed one takes it."""
        if self.embed:
            return (_pixels(tensors[0], self.embed),)
        if self.layout:
            return tuple(t.permute(TO_NHWC).contiguous() if t.ndim == 4 else t for t in tensors)
        return tuple(tensors)


def _last(module: Any) -> Any:
    import torch

    class ChannelsLast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        @property
        def output_names(self) -> list[str]:
            return self.inner.output_names  # type: ignore[no-any-return]

        def forward(self, *tensors: Any) -> Any:
            answers = self.inner(*(t.permute(TO_NCHW) if t.ndim == 4 else t for t in tensors))
            return tuple(a.permute(TO_NHWC) if a.ndim == 4 else a for a in answers)

    return evaluating(ChannelsLast())


def _embedded(module: Any, preprocess: Preprocess) -> Any:
    import torch

    low, high = preprocess.range

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.register_buffer("mean", torch.tensor(preprocess.mean))
            self.register_buffer("std", torch.tensor(preprocess.std))

        @property
        def output_names(self) -> list[str]:
            return self.inner.output_names  # type: ignore[no-any-return]

        def forward(self, pixels: Any) -> Any:
            scaled = pixels.to(torch.float32) / 255 * (high - low) + low
            ready = (scaled - self.mean) / self.std
            return self.inner(ready.permute(TO_NCHW) if preprocess.layout == "NCHW" else ready)

    return evaluating(Pixels())


def _pixels(tensor: Any, preprocess: Preprocess) -> Any:
    """The example as pixels: the inverse of the preprocessing, rounded."""
    import torch

    low, high = preprocess.range
    last = tensor.permute(TO_NHWC) if preprocess.layout == "NCHW" else tensor
    scaled = (last * torch.tensor(preprocess.std) + torch.tensor(preprocess.mean) - low) / (high - low)
    return (scaled * 255).round().clamp(0, 255).to(torch.uint8).contiguous()
