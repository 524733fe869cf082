"""What stands between a user's tensors and the model: the layout of pictures, and preprocessing inside the graph.

Here it is decided, and done to arrays: what goes into the changed model, as the source takes it. So the reference
answers are those of the source as it came, and a wrong transposition shows. Into torch modules it is put here, into
TensorFlow's functions by `tf_boundary`, into ONNX graphs by `onnx_boundary`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ..images import Preprocess
from .job import Job
from .torch_args import evaluating

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

TO = {"nchw": (0, 3, 1, 2), "nhwc": (0, 2, 3, 1)}
"""The order of axes that makes this layout of the other one."""
_CHANNEL = {"nchw": 1, "nhwc": 3}
_OTHER = {"nchw": "nhwc", "nhwc": "nchw"}
_PICTURES = (1, 3, 4)
"""How many channels a picture has; other sizes tell no layout."""


@dataclass(frozen=True)
class Boundary:
    """How a model's boundary differs from what its file says.

    Attributes:
        own: the source's layout, ``nchw`` or ``nhwc``; it counts only where something changes.
        layout: what inputs and outputs of four axes have instead; empty to leave them.
        embed: preprocessing that goes into the graph, which then takes uint8 pixels (1, H, W, 3); None for none.
        preprocess: how pictures become inputs now.
    """

    own: str = "nchw"
    layout: str = ""
    embed: Preprocess | None = None
    preprocess: Preprocess | None = None

    @classmethod
    def make(cls, job: Job, preprocess: Preprocess | None, tensors: Sequence[Any], own: str = "nchw") -> Boundary:
        """From what was asked.

        Args:
            job: the capture.
            preprocess: how pictures become inputs of the source; the layout that it says counts more than `own`.
            tensors: the source's inputs, which have a ``shape`` and a ``dtype``.
            own: the source's layout; empty to read it off the shapes.

        Raises:
            UsageError: no preprocessing to embed, no picture to lay out otherwise, or a layout that isn't known.
        """
        if not (job.layout or job.embed):
            return cls(preprocess=preprocess)
        pictures = [tuple(t.shape) for t in tensors if len(t.shape) == 4]
        option = f"--io-layout {job.layout}" if job.layout else "--embed-preprocessing"
        if job.layout and not pictures:
            raise UsageError(option, f"{job.path} has no input of four axes", "leave it away")
        if preprocess is None and job.embed:
            todo = "add get_preprocess() to a .py; to other files --arg preprocess=FILE.json"
            raise UsageError("--embed-preprocessing", f"{job.path} declares none", todo)
        if job.embed:
            _check_picture(job, tensors)
        if preprocess:
            own = preprocess.layout.lower()
            _check_declared(option, own, pictures)
        own = own or _layout(option, job, pictures)
        if job.embed:
            return cls(own, "", preprocess, _plain(preprocess))
        if job.layout == own:
            return cls(own, preprocess=preprocess)
        return cls(own, job.layout, None, preprocess and replace(preprocess, layout=job.layout.upper()))

    @property
    def changes(self) -> bool:
        """Whether the model's boundary becomes another one."""
        return bool(self.layout or self.embed)

    @property
    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        if self.embed:
            p = self.embed
            inside = f"pixels go to {p.range[0]:g}..{p.range[1]:g}, mean {list(p.mean)}, std {list(p.std)}, {p.layout}"
            return [f"preprocessing is in the graph: {inside}"]
        if self.layout:
            ends = f"{self.layout.upper()}, the source's own are {self.own.upper()}"
            return [f"inputs and outputs of four axes are {ends}"]
        return []

    def inside(self, feed: Feed) -> Feed:
        """What the changed model takes, as the source takes it; pixels by the words of `Preprocess`."""
        import numpy as np

        if self.embed:
            low, high = self.embed.range
            mean, std = (np.asarray(numbers, np.float32) for numbers in (self.embed.mean, self.embed.std))
            scaled = {name: a.astype(np.float32) / 255 * np.float32(high - low) + low for name, a in feed.items()}
            last = {name: ((a - mean) / std).astype(np.float32) for name, a in scaled.items()}
            return _turned(last, "nhwc", self.own)
        return _turned(feed, self.layout or self.own, self.own)

    def outside(self, feed: Feed) -> Feed:
        """What the source takes, as the changed model takes it: the inverse of `inside`, pixels rounded."""
        import numpy as np

        if self.embed:
            scale, shift = affine(self.embed)
            last = _turned(feed, self.own, "nhwc")
            return {name: ((a - shift) / scale).round().clip(0, 255).astype(np.uint8) for name, a in last.items()}
        return _turned(feed, self.own, self.layout or self.own)

    def around(self, run: Callable[[Feed], Feed]) -> Callable[[Feed], Feed]:
        """The source's inference as one of the changed model."""

        def changed(feed: Feed) -> Feed:
            answers = run(self.inside(feed))
            return answers if self.embed else _turned(answers, self.own, self.layout or self.own)

        return changed if self.changes else run

    def to_dict(self) -> dict[str, Any]:
        """What `inside` needs, as JSON data."""
        return {"own": self.own, "layout": self.layout, "embed": self.embed and self.embed.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Boundary:
        """The inverse of `to_dict`."""
        return cls(**{**data, "embed": Preprocess.from_dict(data["embed"]) if data["embed"] else None})

    def wrap(self, module: Any) -> Any:
        """A flat torch module, changed accordingly."""
        if self.embed:
            return _embedded(module, self.embed)
        return _laid_out(module, self.layout, self.own) if self.layout else module

    def tensors(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """`outside` for torch tensors in their order."""
        import torch

        if not self.changes:
            return tuple(tensors)
        feed = {str(i): tensor.detach().numpy() for i, tensor in enumerate(tensors)}
        return tuple(torch.from_numpy(array) for array in self.outside(feed).values())


def declared(job: Job) -> Preprocess | None:
    """The preprocessing in the file of ``--arg preprocess=FILE.json``: the keys of ``get_preprocess()``.

    Raises:
        UsageError: no such file, not JSON, or wrong keys.
    """
    if "preprocess" not in job.args:
        return None
    path = job.args["preprocess"]
    asked = f"--arg preprocess={path}"
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        todo = 'give a .json such as {"size": 224, "mean": [...], "std": [...], "layout": "NHWC"}'
        raise UsageError(asked, f"it can't be read: {error}", todo) from error
    if not isinstance(data, Mapping):
        raise UsageError(asked, "it is not an object", "write the keys of get_preprocess()")
    return Preprocess.from_dict(data, asked)


def affine(preprocess: Preprocess) -> tuple[ndarray, ndarray]:
    """By channel, the factor and the summand that make inputs of pixels 0 to 255."""
    import numpy as np

    low, high = preprocess.range
    mean, std = (np.asarray(numbers, np.float64) for numbers in (preprocess.mean, preprocess.std))
    return ((high - low) / 255 / std).astype(np.float32), ((low - mean) / std).astype(np.float32)


def _turned(feed: Feed, start: str, end: str) -> Feed:
    import numpy as np

    if start == end:
        return feed
    return {n: np.ascontiguousarray(a.transpose(TO[end])) if a.ndim == 4 else a for n, a in feed.items()}


def _plain(preprocess: Preprocess | None) -> Preprocess | None:
    return preprocess and replace(
        preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, range=(0.0, 255.0), layout="NHWC", dtype="uint8"
    )


def _check_picture(job: Job, tensors: Sequence[Any]) -> None:
    dtypes = [str(t.dtype).removeprefix("torch.") for t in tensors]
    if dtypes != ["float32"] or len(tensors[0].shape) != 4 or job.layout == "nchw":
        todo = "it takes pixels as (1, H, W, 3): for a model of one float32 picture, without --io-layout nchw"
        raise UsageError("--embed-preprocessing", f"{job.path} can't take it", todo)


def _check_declared(option: str, own: str, pictures: Sequence[Sequence[int | str]]) -> None:
    """The declared layout must be that of the shapes; it is of three channels."""
    for shape in pictures[:1] if len(pictures) == 1 else ():
        mine, other = shape[_CHANNEL[own]], shape[_CHANNEL[_OTHER[own]]]
        if (isinstance(mine, int) and mine != 3) or (isinstance(mine, str) and other == 3):
            found = f"the declared preprocessing makes {own.upper()}, the model takes {list(shape)}"
            raise UsageError(option, found, 'put its "layout" right: NCHW or NHWC')


def _layout(option: str, job: Job, pictures: Sequence[Sequence[int | str]]) -> str:
    """The layout that shapes tell: where the size of one axis alone is a picture's number of channels."""
    told = [{layout for layout, axis in _CHANNEL.items() if shape[axis] in _PICTURES} for shape in pictures]
    clear = set().union(*(found for found in told if len(found) == 1))
    if len(clear) != 1:
        shapes = ", ".join(str(list(shape)) for shape in pictures)
        todo = 'say it: --arg preprocess=FILE.json with "layout": "NCHW" or "NHWC" (and the "size")'
        raise UsageError(option, f"whether {job.path} is NCHW or NHWC can't be told from {shapes}", todo)
    return clear.pop()


def _laid_out(module: Any, layout: str, own: str) -> Any:
    import torch

    class LaidOut(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        @property
        def output_names(self) -> list[str]:
            return self.inner.output_names  # type: ignore[no-any-return]

        def forward(self, *tensors: Any) -> Any:
            answers = self.inner(*(t.permute(TO[own]) if t.ndim == 4 else t for t in tensors))
            return tuple(a.permute(TO[layout]) if a.ndim == 4 else a for a in answers)

    return evaluating(LaidOut())


def _embedded(module: Any, preprocess: Preprocess) -> Any:
    import torch

    scale, shift = affine(preprocess)

    class Pixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.register_buffer("scale", torch.from_numpy(scale))
            self.register_buffer("shift", torch.from_numpy(shift))

        @property
        def output_names(self) -> list[str]:
            return self.inner.output_names  # type: ignore[no-any-return]

        def forward(self, pixels: Any) -> Any:
            ready = pixels.to(torch.float32) * self.scale + self.shift
            return self.inner(ready.permute(TO["nchw"]) if preprocess.layout == "NCHW" else ready)

    return evaluating(Pixels())
