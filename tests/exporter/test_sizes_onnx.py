"""What --shape, --dynamic and --bucket make of an ONNX file's free dimension: one rule, on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import seatrial
from seatrial.core.specs import TensorSpec
from seatrial.exporter import sizes
from seatrial.exporter.sizes import Size

onnx = pytest.importorskip("onnx")
node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
FLOAT = onnx.TensorProto.FLOAT


def save(path: Path, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> Path:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x: (n, 4) → y: (n, 3)."""
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Sigmoid", ["m"], ["y"])]
    ports = [value("x", FLOAT, ["n", 4]), value("y", FLOAT, ["n", 3])]
    return save(tmp_path / "m.onnx", nodes, ports[:1], ports[1:], {"w": weight(4, 3)})


def test_a_size_to_try_stays_free_but_for_a_target_that_needs_one(
    model: Path, environment: Callable[[str], Path], tmp_path: Path
) -> None:
    environment("onnx2tf")
    free, fixed = seatrial.export(model, ["onnxruntime", "tflite"], shapes={"x": [2, 4]}, output=tmp_path / "b")
    assert (free.bundle.inputs[0].shape, fixed.bundle.inputs[0].shape) == (("n", 4), (2, 4))
    x = weight(5, 4)
    assert seatrial.load(free.bundle.path).run({"x": x})["y"].shape == (5, 3)
    assert seatrial.load(fixed.bundle.path).run({"x": x[:2]})["y"].shape == (2, 3)
    with pytest.raises(seatrial.SeatrialError, match="--bucket"):  # there, free was asked for
        seatrial.export(model, "tflite", dynamic=["n=1:8"], output=tmp_path / "c")


def test_a_bucket_whose_size_does_not_fit_every_branch(tmp_path: Path) -> None:
    """As in silero_vad.onnx: one branch for each rate, and each takes another size."""
    branches = [
        onnx.helper.make_graph([node("MatMul", ["x", w], [f"y_{w}"])], w, [], [value(f"y_{w}", FLOAT, None)])
        for w in ("wide", "narrow")
    ]
    nodes = [
        node("Greater", ["rate", "low"], ["yes"]),
        node("If", ["yes"], ["m"], then_branch=branches[0], else_branch=branches[1]),
        node("Sigmoid", ["m"], ["y"]),
    ]
    weights = {"wide": weight(8, 3), "narrow": weight(4, 3), "low": np.array(8000, np.int64)}
    inputs = [value("x", FLOAT, ["n", "length"]), value("rate", onnx.TensorProto.INT64, [])]
    model = save(tmp_path / "m.onnx", nodes, inputs, [value("y", FLOAT, ["n", 3])], weights)
    asked = {"bucket": ["n=1", "length=8"], "ranges": {"rate": [16000, 16001]}}
    [made] = seatrial.export(model, "onnxruntime", output=tmp_path / "b", **asked)
    assert made.proof.ok and made.bundle.inputs[0].shape == (1, 8)
    assert any("stay free inside the file" in note for note in made.bundle.manifest["notes"])


def test_sizes_to_try_fix_all_free_dimensions_or_none() -> None:
    inputs = [TensorSpec("a", "float32", ("n", 4, "length")), TensorSpec("b", "float32", ("n",))]
    assert sizes.tried(inputs, {"a": [2, 4, 7]}) == ()
    found = sizes.tried(inputs, {"a": [2, 4, 7], "b": [2]})
    assert found == (Size(("a.0",), 2, 2), Size(("a.2",), 7, 7), Size(("b.0",), 2, 2))
    assert [spec.shape for spec in sizes.fixed(inputs, found)] == [(2, 4, 7), (2,)]
