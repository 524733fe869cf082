"""A mobile CNN whose depth, widths, kernels and resolution are chosen: inverted residuals and depthwise convolutions.

This file needs torch and nothing else, when it builds: a copy of it travels with every candidate's source.
Blocks after Sandler et al., "MobileNetV2", CVPR 2018. ReLU6 and plain convolutions: every runtime quantizes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Options = dict[str, Any]
Values = Mapping[str, Any]

DEFAULTS: Options = {
    "channels": 1,
    "classes": 10,
    "size": 28,
    "stem": 16,
    "stem_stride": 2,
    "stages": [
        {"width": 24, "depth": 2, "stride": 1, "expand": 3},
        {"width": 48, "depth": 3, "stride": 2, "expand": 3},
        {"width": 96, "depth": 2, "stride": 2, "expand": 3},
    ],
    "widths": [0.35, 0.5, 0.75, 1.0],
    "kernels": [3, 5],
    "resolutions": [20, 28],
    "head": 128,
}
"""Channels, classes and size (height = width) of the data; channels of the stem and of the head; for each stage its
channels at width 1, its most blocks, the stride of its first block, and how much a block expands (1:
depthwise-separable); then the choices of width (a factor; channels are rounded to 8), kernel and resolution."""


def complete(options: Options, where: str) -> Options:
    """All options, with the defaults of those that aren't given.

    Raises:
        UsageError: an unknown key, or a value that makes no network.
    """
    from ...core.config import refuse_unknown
    from ...core.errors import UsageError

    refuse_unknown(options.keys(), DEFAULTS, where)
    found = {**DEFAULTS, "resolutions": [options.get("size", DEFAULTS["size"])], **options}
    if not {"size", "resolutions"} & options.keys():
        found["resolutions"] = DEFAULTS["resolutions"]
    for key in ("channels", "classes", "size", "stem", "stem_stride", "head"):
        if not _whole(found[key]):
            raise UsageError(f"{where}: {key}", f"{found[key]!r}", "write a whole number from 1 up")
    for key in ("widths", "kernels", "resolutions"):
        values = found[key]
        if not isinstance(values, list) or not values or not all(_number(x) and x > 0 for x in values):
            raise UsageError(f"{where}: {key}", f"{values!r}", "write a list of numbers above 0")
    if any(x % 2 != 1 for x in found["kernels"]):
        raise UsageError(f"{where}: kernels", f"{found['kernels']}", "write odd whole numbers: [3, 5]")
    if not all(_whole(x) and x <= found["size"] for x in found["resolutions"]):
        raise UsageError(f"{where}: resolutions", f"{found['resolutions']}", f"whole numbers up to {found['size']}")
    stages, keys = found["stages"], ("width", "depth", "stride", "expand")
    for stage in stages if isinstance(stages, list) and stages else [None]:
        if not isinstance(stage, Mapping) or set(stage) != set(keys) or not all(_whole(stage[k]) for k in keys):
            raise UsageError(f"{where}: stages", f"{stage!r}", f"a list of tables of whole numbers: {', '.join(keys)}")
    return found


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def _whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 1


def space(options: Options) -> dict[str, list[Any]]:
    """The variables and their choices; one that has no choice is left out."""
    found = {"resolution": sorted(options["resolutions"])}
    for i, stage in enumerate(options["stages"], 1):
        found[f"depth{i}"] = list(range(1, stage["depth"] + 1))
        found[f"width{i}"] = sorted(options["widths"])
        found[f"kernel{i}"] = sorted(options["kernels"])
    return {name: choices for name, choices in found.items() if len(choices) > 1}


def extreme(options: Options, largest: bool) -> dict[str, Any]:
    """The candidate with the largest, or the smallest, value of every variable."""
    return {name: choices[-1 if largest else 0] for name, choices in space(options).items()}


def rounded(channels: float) -> int:
    """To a multiple of 8, at least 8: other numbers of channels are slow, or padded, on most runtimes."""
    return max(8, int(channels + 4) // 8 * 8)


def example(options: Options) -> Any:
    """Example inputs: one picture of the data's size, (1, channels, size, size)."""
    import torch

    shape = (1, options["channels"], options["size"], options["size"])
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)),)


def _conv(start: int, end: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> Any:
    from torch import nn

    parts = [nn.Conv2d(start, end, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(end)]
    return nn.Sequential(*parts, *([nn.ReLU6()] if act else []))


def _block(start: int, end: int, kernel: int, stride: int, expand: int) -> Any:
    from torch import nn

    class Block(nn.Module):
        """Expand, depthwise, project; added to its input where that has the same shape."""

        def __init__(self) -> None:
            super().__init__()
            inner = rounded(start * expand) if expand > 1 else start
            self.expand = _conv(start, inner) if expand > 1 else nn.Identity()
            self.depthwise = _conv(inner, inner, kernel, stride, groups=inner)
            self.project = _conv(inner, end, act=False)

        def forward(self, x: Any) -> Any:
            found = self.project(self.depthwise(self.expand(x)))
            return x + found if stride == 1 and start == end else found

    return Block()


def _stages(wanted: Values, options: Options, channels: int) -> tuple[Any, int]:
    """The blocks, and the channels that leave them."""
    from torch import nn

    stages = nn.ModuleList()
    for i, stage in enumerate(options["stages"], 1):
        width = rounded(stage["width"] * wanted.get(f"width{i}", options["widths"][0]))
        kernel = wanted.get(f"kernel{i}", options["kernels"][0])
        blocks = nn.Sequential()
        for j in range(wanted.get(f"depth{i}", 1)):
            blocks.append(_block(channels, width, kernel, 1 if j else stage["stride"], stage["expand"]))
            channels = width
        stages.append(blocks)
    return stages, channels


def build(values: Values, options: Options) -> Any:
    """The network of these values, with weights as torch draws them; a variable without a value has its largest.

    It takes pictures of the data's size, whatever its resolution: it resizes them itself, so that all candidates take
    the same inputs, and the resizing is part of what is timed.
    """
    import torch
    from torch import nn

    wanted = extreme(options, True) | dict(values)
    resolution = wanted.get("resolution", options["resolutions"][0])

    class Elastic(nn.Module):
        """Stem, stages, head, mean over places, classifier."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = _conv(options["channels"], rounded(options["stem"]), 3, options["stem_stride"])
            self.stages, channels = _stages(wanted, options, rounded(options["stem"]))
            self.head = _conv(channels, rounded(options["head"]))
            self.classifier = nn.Linear(rounded(options["head"]), options["classes"])

        def forward(self, image: Any) -> Any:
            x = image
            if resolution != options["size"]:
                size = (resolution, resolution)
                x = nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = self.stem(x)
            for stage in self.stages:
                x = stage(x)
            return self.classifier(torch.mean(self.head(x), (2, 3)))

    return Elastic()
