"""Quantization: each runtime's own quantizer, with a recipe that is frozen data."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from ...core.errors import MissingPart, Unsupported


@dataclass(frozen=True)
class Recipe:
    """How an artifact was made from the fp32 one.

    Attributes:
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        options: the quantizer's own options, resolved for a CPU.
        calibration_id: content id of the calibration samples, or None.
        calibration_n: how many there were.
        operations: how many operations compute in ``int8`` and how many in ``float``, each by type.
    """

    precision: str
    options: dict[str, Any] = field(default_factory=dict)
    calibration_id: str | None = None
    calibration_n: int = 0
    operations: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def held(self, answer: Mapping[str, Any]) -> Recipe:
        """The recipe as it held, from what the quantizer answered: ``fitting`` has become ``all`` or ``linear``."""
        options = {key: answer.get(key, value) for key, value in self.options.items()}
        return replace(self, options=options, operations={"int8": answer["quantized"], "float": answer["float"]})


HELD = "held.json"
"""What the quantizer answered, beside its product."""

_MODULES = {name: f"seatrial.exporter.quantize.{name}" for name in ("onnxruntime", "openvino", "tflite")}
_MODULES["tflite-runtime"] = _MODULES["tflite"]
_NEEDS = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
    "tflite": ("ai_edge_litert", "ai_edge_quantizer"),
}


def function(target: str) -> str:
    """The quantizer of a target, as ``module:name``.

    Raises:
        Unsupported: the target has none.
    """
    if target not in _MODULES:
        raise Unsupported(f"int8 for {target}", "it has no quantizer here", f"known: {', '.join(_MODULES)}")
    return f"{_MODULES[target]}:quantize"


def needs(target: str) -> tuple[str, ...]:
    """Modules that a target's quantizer imports."""
    return _NEEDS.get(_name(target), ())


def _name(target: str) -> str:
    """The quantizer's module, which is also the extra that brings its parts."""
    return _MODULES.get(target, "").rpartition(".")[2]


def need(target: str) -> None:
    """Raise where int8 for this target lacks a part.

    Raises:
        MissingPart: a module is not installed; the error gives the command.
    """
    for name in needs(target):
        if find_spec(name) is None:
            found, todo = f"the module {name} is not installed", f'pip install "seatrial[{_name(target)}]"'
            raise MissingPart(f"int8 for {target}", found, todo)


def recipe(target: str, flags: Sequence[str], calibration_id: str, calibration_n: int) -> Recipe:
    """The default int8 recipe of a target for a CPU with these flags."""
    module = importlib.import_module(function(target).partition(":")[0])
    return Recipe("int8", module.resolve(flags), calibration_id, calibration_n)
