"""A Program: the captured model with its inputs, its reference outputs and its id, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.specs import TensorSpec
from .data import Data
from .images import Preprocess

if TYPE_CHECKING:
    from ..core.samples import Feed

FILE = "program.json"
GROUPS = ("main", "edges", "held_out", "evaluate", "confirm")
"""What is proven, in this order; `held_out` is the part of the calibration data that calibrates nothing."""


@dataclass(frozen=True)
class Program:
    """What a source became.

    Attributes:
        folder: holds the files below and the converters' products.
        name: what people call it; the stem of the source.
        kind: the format that routes start from: ``torch`` or ``onnx``.
        model: file name of the captured graph (``model.pt2``, ``model.onnx``).
        source_id: content id of the user's files and arguments.
        reference: where reference outputs come from, in words.
        inputs: what goes in.
        outputs: what comes out.
        main: one name for each main sample (``example``, ``noise 0``, ``real 3``).
        edges: one name for each edge case.
        data: facts of the user's data by use (``calibration``, ``held_out``, ``evaluate``, ``confirm``): name, id, n,
            labels, names of the files, rows of a larger set.
        labels: class names of a declared classifier.
        detections: the outputs of a declared detector, see `proof.detections.read`; empty for others.
        preprocess: how photos become inputs.
        capture_db: SQNR of the captured graph against the source, in dB; None where nothing was captured.
        capture_problems: what is wrong with its answers, in words.
        sizes: lowest and highest size of each free dimension, by name, where the user gave them.
        attached: names of files in the folder ``attached`` that travel with the bundle, such as a tokenizer's.
        precision: what the captured graph computes in; another than fp32 for a file that was quantized before.
        quanta: scale and zero point of each integer output that stands for real numbers, by name.
        licence: of the weights, as the source states it.
        notes: what a reader of the report should know of the way here.
        tools: versions of what took part.
    """

    folder: Path
    name: str
    kind: str
    model: str
    source_id: str
    reference: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    main: list[str]
    edges: list[str]
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: list[str] | None = None
    detections: dict[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    capture_db: float | None = None
    capture_problems: list[str] = field(default_factory=list)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    precision: str = "fp32"
    quanta: dict[str, list[float]] = field(default_factory=dict)
    licence: str | None = None
    notes: list[str] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=dict)

    def feeds(self, group: str) -> list[Feed]:
        """The inputs of a group: ``main``, ``edges`` or a use of the data; empty where there is none."""
        return self._samples(f"{group}_in.npz")

    def reference_outputs(self, group: str) -> list[Feed]:
        """What the reference answers to `feeds`; nothing is asked for calibration samples."""
        return self._samples(f"{group}_out.npz")

    def span(self, group: str) -> tuple[int, int]:
        """Where a group begins and ends among the samples that are proven: those of all `GROUPS`, in that order."""
        sizes = {"main": len(self.main), "edges": len(self.edges)}
        sizes |= {use: facts["n"] for use, facts in self.data.items() if use in GROUPS}
        start = sum(sizes.get(each, 0) for each in GROUPS[: GROUPS.index(group)])
        return start, start + sizes.get(group, 0)

    def _samples(self, name: str) -> list[Feed]:
        return samples.load(self.folder / name) if (self.folder / name).exists() else []

    def calibration(self) -> Data | None:
        """The samples to calibrate with, where the user gave any."""
        facts = self.data.get("calibration")
        return Data(facts["name"], facts["id"], self.feeds("calibration")) if facts else None

    @property
    def classes(self) -> str | None:
        """The output whose largest entry is the class, of a declared classifier."""
        sizes = [spec.name for spec in self.outputs if self.labels and spec.shape[-1:] == (len(self.labels),)]
        return sizes[0] if sizes else None

    def save(self) -> None:
        """Write the program's data beside its files."""
        data = {k: v for k, v in asdict(self).items() if k != "folder"}
        data["inputs"] = [spec.to_dict() for spec in self.inputs]
        data["outputs"] = [spec.to_dict() for spec in self.outputs]
        data["preprocess"] = self.preprocess.to_dict() if self.preprocess else None
        part = self.folder / f"{FILE}.part"
        part.write_text(json.dumps(data, indent=1))
        part.replace(self.folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Program:
        """Read what `save` wrote."""
        data: Mapping[str, Any] = json.loads((folder / FILE).read_text())
        preprocess = data["preprocess"]
        fixed = {
            "folder": folder,
            "inputs": [TensorSpec.from_dict(spec) for spec in data["inputs"]],
            "outputs": [TensorSpec.from_dict(spec) for spec in data["outputs"]],
            "preprocess": Preprocess.from_dict(preprocess) if preprocess else None,
        }
        return cls(**{**data, **fixed})


def names(file: str) -> tuple[list[str], list[str]]:
    """Names of the inputs and outputs in a program's JSON file, for converters."""
    data = json.loads(Path(file).read_text())
    return [spec["name"] for spec in data["inputs"]], [spec["name"] for spec in data["outputs"]]
