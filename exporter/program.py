"""A Program: the captured model with its inputs, its reference outputs and its id, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.specs import TensorSpec
from .images import Preprocess

if TYPE_CHECKING:
    from ..core.samples import Feed

FILE = "program.json"


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
        main: one name for each main sample (``example``, ``noise 0``, ``calibration 3``).
        edges: one name for each edge case.
        labels: class names of a declared classifier.
        preprocess: how photos become inputs.
        capture_db: SQNR of the captured graph against the source, in dB; None where nothing was captured.
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
    labels: list[str] | None = None
    preprocess: Preprocess | None = None
    capture_db: float | None = None
    tools: dict[str, str] = field(default_factory=dict)

    def feeds(self, group: str) -> list[Feed]:
        """The inputs of ``main`` or ``edges``."""
        return samples.load(self.folder / f"{group}_in.npz") if getattr(self, group) else []

    def reference_outputs(self, group: str) -> list[Feed]:
        """What the reference answers to `feeds`."""
        return samples.load(self.folder / f"{group}_out.npz") if getattr(self, group) else []

    def save(self) -> None:
        """Write the program's data beside its files."""
        data = {k: v for k, v in asdict(self).items() if k != "folder"}
        data["inputs"] = [spec.to_dict() for spec in self.inputs]
        data["outputs"] = [spec.to_dict() for spec in self.outputs]
        data["preprocess"] = self.preprocess.to_dict() if self.preprocess else None
        (self.folder / FILE).write_text(json.dumps(data, indent=1))

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
