"""Converters, and the routes that they make from a source's format to a target's.

A converter is a function ``convert(source, out, program) -> dict``: it reads the file `source`, writes the main file
`out`, and keeps the names of inputs and outputs that stand in the JSON file `program`. Third parties add theirs with
an entry point in the group ``seatrial.converters``: ``"torch to myformat" = "module:function"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec

from ...core import environments
from ...core.errors import MissingPart


@dataclass(frozen=True)
class Step:
    """One converter.

    Attributes:
        source: format that it reads.
        target: format that it writes.
        function: ``module:name``.
        needs: modules that it imports.
        extra: the extra of ours that brings them.
        in_capture: whether it runs in the process that captured the model, which saves a second import of torch.
        early: whether it imports for seconds, so that it is started before its source is there.
        by: who does it, where several can.
        fixed: whether it can't keep a free dimension.
        instead: label of the converter that this one runs after, where that one failed (both in the capture).
        environment: name of the environment whose interpreter runs it; `needs` and `extra` then say nothing.
    """

    source: str
    target: str
    function: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    in_capture: bool = False
    early: bool = False
    by: str = ""
    fixed: bool = False
    instead: str = ""
    environment: str = ""

    @property
    def label(self) -> str:
        """As reports name it."""
        return f"{self.source} → {self.target}" + f" ({self.by})" * bool(self.by)

    @property
    def key(self) -> str:
        """Name of the folder that its products lie in."""
        return "-".join(part.replace(" ", "_") for part in (self.source, self.target, self.by) if part)

    def missing(self) -> list[str]:
        """Modules that are not installed, or the environment."""
        if self.environment:
            return [] if environments.ready(self.environment) else [f"environment {self.environment}"]
        return [name for name in self.needs if find_spec(name) is None]

    def need(self) -> None:
        """Raise a `MissingPart` with the command to type, where a module or the environment is missing."""
        if self.environment:
            environments.need(self.environment, f"the conversion {self.label}")
            return
        missing = self.missing()
        if missing:
            todo = f'pip install "seatrial[{self.extra}]"'
            raise MissingPart(f"the conversion {self.label}", f"the module {missing[0]} is not installed", todo)


_HERE = "seatrial.exporter.convert"
_TORCH_ONNX = ("torch", "onnx", "onnxscript")
# In the order in which routes are tried: by their first step here.
STEPS = [
    Step(
        "torch",
        "tflite",
        f"{_HERE}.torch_tflite:convert",
        ("torch", "litert_torch"),
        "litert-torch",
        early=True,
        fixed=True,
    ),
    Step("torch", "onnx", f"{_HERE}.torch_onnx:convert", _TORCH_ONNX, "torch", in_capture=True),
    Step("torch", "openvino", f"{_HERE}.torch_openvino:convert", ("torch", "openvino"), "openvino"),
    Step(
        "torch",
        "onnx",
        f"{_HERE}.torch_onnx_older:convert",
        _TORCH_ONNX,
        "torch",
        in_capture=True,
        by="older exporter",
        instead="torch → onnx",
    ),
    Step("savedmodel", "tflite", f"{_HERE}.tf_tflite:convert", ("tensorflow",), "tensorflow", in_capture=True),
    Step("savedmodel", "openvino", f"{_HERE}.tf_openvino:convert", ("openvino",), "openvino"),
    Step(
        "savedmodel",
        "onnx",
        f"{_HERE}.tf_onnx:convert",
        ("tensorflow", "tf2onnx", "onnx"),
        "tensorflow",
        in_capture=True,
    ),
    Step("onnx", "openvino", f"{_HERE}.onnx_openvino:convert", ("openvino",), "openvino"),
    Step("onnx", "tflite", f"{_HERE}.onnx_tflite:convert", fixed=True, environment="onnx2tf"),
]


@cache
def _others() -> list[Step]:
    steps = []
    for point in metadata.entry_points(group="seatrial.converters"):
        source, _, target = point.name.partition(" to ")
        steps.append(Step(source, target, point.value))
    return steps


def routes(source: str, target: str) -> list[list[Step]]:
    """All chains of at most two converters from one format to another, in the order of the table's first steps."""
    if source == target:
        return [[]]
    steps = [*STEPS, *_others()]
    found = []
    for first in steps:
        if first.source == source and first.target == target:
            found.append([first])
        elif first.source == source:
            found += [[first, last] for last in steps if (last.source, last.target) == (first.target, target)]
    return found
