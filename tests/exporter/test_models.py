"""Models as users have them: what becomes of branches, non-maximum suppression, recurrence, masks, odd names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial

onnx = pytest.importorskip("onnx")

MODULES = """
import torch

class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = torch.nn.Embedding(40, 8), torch.nn.LSTM(8, 6, batch_first=True, bidirectional=True)

    def forward(self, ids, mask):
        found, _ = self.lstm(self.embed(ids))
        # A mean over what the mask keeps: nothing, where it is all zeros, and 0 / 0 is NaN.
        return (found * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

def get_model():
    torch.manual_seed(0)
    return Tagger().eval()

def get_args():
    return {"ids": torch.arange(7)[None] * 5, "mask": torch.ones(1, 7)}
"""


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> Path:
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def value(name: str, shape: list[Any], kind: int = onnx.TensorProto.FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def test_a_recurrent_net_with_a_mask_of_zeros_whose_answer_is_nan(tmp_path: Path, needs: Any):
    needs("torch")
    path = tmp_path / "tagger.py"
    path.write_text(MODULES)
    targets = ["onnxruntime", "openvino", "tflite"]
    for made in seatrial.export(path, targets, ranges={"ids": [0, 40]}, output=tmp_path / "a"):
        assert made.proof.parity.skipped_edges == ["zeros"], made.bundle.target
        assert "not finite: zeros" in (made.bundle.path / "report.md").read_text()
    with pytest.raises(seatrial.SeatrialError) as caught:
        seatrial.export(path, ranges={"ids": [0, 4000]}, output=tmp_path / "b")
    assert "index out of range" in str(caught.value) and caught.value.exit_code != 0
    assert not (tmp_path / "b").exists()


def detector(path: Path, nms: bool) -> Path:
    """Boxes and scores of (1, 20, 4) and (1, 2, 20); with `nms` the chosen ones, as many as there are."""
    from onnx import helper

    rng = np.random.default_rng(0)
    weights = {
        "wb": rng.standard_normal((12, 80)).astype(np.float32),
        "ws": rng.standard_normal((12, 40)).astype(np.float32),
        "sb": np.array([1, 20, 4]),
        "ss": np.array([1, 2, 20]),
        "most": np.array([5]),
        "iou": np.array([0.5], np.float32),
        "least": np.array([0.1], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "wb"], ["b0"]),
        helper.make_node("Sigmoid", ["b0"], ["b1"]),
        helper.make_node("Reshape", ["b1", "sb"], ["boxes"]),
        helper.make_node("MatMul", ["x", "ws"], ["s0"]),
        helper.make_node("Sigmoid", ["s0"], ["s1"]),
        helper.make_node("Reshape", ["s1", "ss"], ["scores"]),
    ]
    outputs = [value("boxes", [1, 20, 4]), value("scores", [1, 2, 20])]
    if nms:
        nodes.append(helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["chosen"]))
        outputs.append(value("chosen", ["n", 3], onnx.TensorProto.INT64))
    return save(path, nodes, [value("x", [1, 12])], outputs, weights)


@pytest.mark.parametrize("nms", [True, False], ids=["nms", "plain"])
def test_a_detector_says_whether_suppression_is_in_its_graph(tmp_path: Path, nms: bool):
    made = seatrial.export(detector(tmp_path / "d.onnx", nms), ["onnxruntime", "openvino"], output=tmp_path / "a")
    assert [one.bundle.manifest["nms_in_graph"] for one in made] == [nms, nms]
    found = seatrial.load(made[0].bundle.path).run({"x": np.ones((1, 12), np.float32)})
    assert ("chosen" in found) == nms


def test_a_branch_in_an_onnx_file_goes_as_far_as_each_runtime_takes_it(tmp_path: Path):
    from onnx import helper

    branches = {
        name: helper.make_graph([helper.make_node(op, ["x"], [name])], name, [], [value(name, [1, 6])])
        for name, op in (("yes", "Tanh"), ("no", "Sigmoid"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches["yes"], else_branch=branches["no"]),
    ]
    zero = {"zero": np.array(0, np.float32)}
    path = save(tmp_path / "if.onnx", nodes, [value("x", [1, 6])], [value("y", [1, 6])], zero)
    made = seatrial.export(path, ["onnxruntime", "openvino"], output=tmp_path / "a")
    for sign in (1, -1):
        x = np.full((1, 6), sign, np.float32)
        want = np.tanh(x) if sign > 0 else 1 / (1 + np.exp(-x))
        assert all(np.allclose(seatrial.load(m.bundle.path).run({"x": x})["y"], want, atol=1e-5) for m in made)


def test_a_name_with_spaces_and_other_letters(tmp_path: Path):
    folder = tmp_path / "Modèle für 日本"
    folder.mkdir()
    path = detector(folder / "größe 2.onnx", False)
    made = seatrial.export(path, ["onnxruntime", "openvino"], output=folder / "das Bündel")
    assert {one.bundle.manifest["name"] for one in made} == {"größe 2"}
    assert all(one.proof.ok for one in made)
