"""Quantization: each runtime's own quantizer, with a recipe that is frozen data."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...core.errors import Unsupported


@dataclass(frozen=True)
class Recipe:
    """How an artifact was made from the fp32 one.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``int8``.
        options: the quantizer's own options, resolved for a CPU.
        calibration_id: content id of the calibration samples, or None.
        calibration_n: how many there were.
    """

    precision: str
    options: dict[str, Any] = field(default_factory=dict)
    calibration_id: str | None = None
    calibration_n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


_MODULES = {name: f"seatrial.exporter.quantize.{name}" for name in ("onnxruntime", "openvino", "tflite")}


def function(target: str) -> str:
    """The quantizer of a target, as ``module:name``.

    Raises:
        Unsupported: the target has none.
    """
    if target not in _MODULES:
        raise Unsupported(f"int8 for {target}", "it has no quantizer here", f"known: {', '.join(_MODULES)}")
    return f"{_MODULES[target]}:quantize"


def recipe(target: str, flags: Sequence[str], calibration_id: str, calibration_n: int) -> Recipe:
    """The default int8 recipe of a target for a CPU with these flags."""
    module = importlib.import_module(function(target).partition(":")[0])
    return Recipe("int8", module.resolve(flags), calibration_id, calibration_n)
