"""An artifact: the files that a runtime loads, with how they were made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import tools
from .quantize import Recipe

START = {
    "torch": "model.pt2",
    "savedmodel": "savedmodel",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
    "openvino": "model.xml",
}
"""What a capture leaves, by the format that routes start from."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "tflite": ".tflite"}


@dataclass(frozen=True)
class Artifact:
    """The files that a runtime loads.

    Attributes:
        target: name of the target.
        path: main file; the files beside it in its folder belong to it.
        recipe: how it was made.
        route: the converters that made it (``torch → onnx``).
        lost: routes that were tried before, each with its reason.
        id: content id of its files.
    """

    target: str
    path: Path
    recipe: Recipe
    route: list[str]
    lost: list[str]
    id: str

    @property
    def precision(self) -> str:
        """Precision of the recipe."""
        return self.recipe.precision

    @property
    def tools(self) -> dict[str, str]:
        """Versions of the converters and the quantizer that made it."""
        return tools.read(self.path)

    @property
    def files(self) -> list[Path]:
        """All files that the runtime loads."""
        return model_files(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.stat().st_size for file in self.files)


def model_files(main: Path) -> list[Path]:
    """A model's main file with what belongs to it: IR weights, ONNX external data."""
    return sorted(p for p in main.parent.glob(f"{main.stem}.*") if p.suffix not in (".part", ".pt2"))
