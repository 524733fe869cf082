"""Tiny real models, bundles around them, and workers whose blocks last what a test says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest


def write_chain(path: Path, repeat: int, size: int = 64) -> Path:
    """`repeat` equal blocks of MatMul and Tanh: the work grows exactly with `repeat`."""
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((size, size)) / np.sqrt(size)).astype(np.float32)
    nodes, at = [], "x"
    for i in range(repeat):
        out = "y" if i == repeat - 1 else f"t{i}"
        nodes += [
            helper.make_node("MatMul", [at, "w"], [f"m{i}"]),
            helper.make_node("Tanh", [f"m{i}"], [out]),
        ]
        at = out
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, size]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_bundle(folder: Path, repeat: int = 2, output_error: float = 0.0) -> Path:
    """A bundle with golden vectors made by the runtime; `output_error` spoils the golden outputs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy as np
    from seatrial.core import bundle, ids, samples

    (folder / "golden").mkdir(parents=True)
    write_chain(folder / "model.onnx", repeat)
    feed = {"x": np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)}
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    samples.save(folder / "golden/inputs.npz", [feed])
    samples.save(folder / "golden/outputs.npz", [{"y": session.run(None, feed)[0] + np.float32(output_error)}])
    files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    manifest = {
        "schema": bundle.SCHEMA,
        "target": "onnxruntime",
        "precision": "fp32",
        "model": "model.onnx",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [4, 64], "low": None, "high": None}],
        "settings": {"threads": 1, "graph_optimization": "all"},
        "files": {name: {"sha256": ids.file_sha256(path)} for name, path in sorted(files.items())},
    }
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    (folder / bundle.SEAL).write_text(bundle.seal(folder / bundle.MANIFEST))
    return folder


def quiet_machine(monkeypatch: pytest.MonkeyPatch, ms: Callable[[str], float]) -> None:
    """Blocks last what `ms(artifact)` says, within 0.2 %: real workers, but a verdict that no neighbour disturbs."""
    from seatrial.devices.launches import OpenArm

    rng = random.Random(1)

    def block(self: OpenArm) -> None:
        level = ms(self.arm.artifact) * rng.gauss(1, 0.002)
        self.run.blocks.append([int(1e6 * level)] * 3)
        self.run.notes.append({})

    monkeypatch.setattr(OpenArm, "block", block)
