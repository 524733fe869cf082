"""Photos into tensors, by preprocessing that is data: what a model wants travels with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import from_mapping
from ..core.errors import UsageError

if TYPE_CHECKING:
    from numpy import ndarray

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff"}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Preprocess:
    """How pixels become an input; a model's ``get_preprocess()`` returns these keys.

    Attributes:
        size: height and width that the model takes, or one number for both.
        resize: the shorter side in pixels after resizing; by default the smaller of `size`.
        crop: ``center``, or ``none`` to squeeze the whole picture into `size`.
        mean: per channel, after scaling to `range`.
        std: per channel.
        range: the values that black and white are scaled to, before mean and std.
        layout: ``NCHW`` or ``NHWC``.
        interpolation: ``bicubic`` or ``bilinear``.
        dtype: ``float32``, or ``uint8`` for a graph that takes the pixels themselves.
    """

    size: tuple[int, int] | int
    resize: int | None = None
    crop: str = "center"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    range: tuple[float, float] = (0.0, 1.0)
    layout: str = "NCHW"
    interpolation: str = "bicubic"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("crop", ("center", "none")),
            ("layout", ("NCHW", "NHWC")),
            ("interpolation", ("bicubic", "bilinear")),
            ("dtype", ("float32", "uint8")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        if not (len(sides) == 2 and all(map(_is_size, sides))):
            raise ValueError(f"size={self.size!r}; needed: one whole number from 1 up, or two (height, width)")
        if self.resize is not None and not _is_size(self.resize):
            raise ValueError(f"resize={self.resize!r}; needed: a whole number from 1 up")
        for name, count in (("mean", 3), ("std", 3), ("range", 2)):
            value = getattr(self, name)
            if not (isinstance(value, tuple) and len(value) == count and all(map(_is_number, value))):
                raise ValueError(f"{name}={value!r}; needed: {count} numbers")
        if 0 in self.std:
            raise ValueError(f"std={self.std!r}; no channel's may be 0")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "get_preprocess()") -> Preprocess:
        """From a model's own data; unknown keys are refused."""
        return from_mapping(cls, data, where)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def height_width(self) -> tuple[int, int]:
        """`size` as two numbers."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    def load(self, path: Path) -> ndarray:
        """A picture file as an array of shape (1, 3, H, W) or (1, H, W, 3), of `dtype`.

        Raises:
            UsageError: the file is not a picture that Pillow reads.
        """
        import numpy as np
        from PIL import Image

        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except Exception as error:  # over broken bytes Pillow raises SyntaxError, struct.error and more
            todo = "take it away, or replace it by a whole one"
            raise UsageError(f"the picture {path}", f"it can't be read: {error}", todo) from error
        pixels = np.asarray(self._fit(picture), dtype=np.float32) / 255
        low, high = self.range
        pixels = pixels * np.float32(high - low) + np.float32(low)
        pixels = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        if self.layout == "NCHW":
            pixels = pixels.transpose(2, 0, 1)
        if self.dtype == "uint8":
            pixels = pixels.round().clip(0, 255)
        return np.ascontiguousarray(pixels[None], dtype=self.dtype)

    def _fit(self, picture: Any) -> Any:
        from PIL import Image

        filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        kernel = filters[self.interpolation]
        height, width = self.height_width
        if self.crop == "none":
            return picture.resize((width, height), kernel)
        scale = (self.resize or min(height, width)) / min(picture.size)
        scale = max(scale, width / picture.width, height / picture.height)
        wide, high = (
            max(round(side * scale), least) for side, least in zip(picture.size, (width, height), strict=True)
        )
        left, top = (wide - width) // 2, (high - height) // 2
        return picture.resize((wide, high), kernel).crop((left, top, left + width, top + height))
