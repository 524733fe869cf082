"""Another layout, and preprocessing, at the boundary of an ONNX file: held against the file as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core.errors import SeatrialError, UsageError
from seatrial.core.specs import TensorSpec
from seatrial.exporter.images import Preprocess
from seatrial.exporter.sources.boundary import Boundary
from seatrial.exporter.sources.job import Job

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
node, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
FLOAT = onnx.TensorProto.FLOAT
BOTH = "onnxruntime,openvino"
RNG = np.random.default_rng(0)
PREPROCESS = {"size": [6, 8], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "range": [-1, 1], "layout": "NCHW"}


def make(path: Path, opset: int = 13, branch: bool = False) -> Path:
    """A convolution with maps and scores; its input, also one that a branch reads, has a free batch."""
    nodes = [
        node("Conv", ["image", "w"], ["maps"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["maps"], ["bent"]),
        node("GlobalAveragePool", ["bent"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("MatMul", ["flat", "h"], ["scores"]),
    ]
    weights = {"w": RNG.standard_normal((5, 3, 3, 3)) / 3, "h": RNG.standard_normal((5, 4))}
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    outputs = [tensor("maps", FLOAT, ["n", 5, 6, 8]), tensor("scores", FLOAT, ["n", 4])]
    if branch:
        sides = [
            onnx.helper.make_graph([node(kind, ["image"], [kind])], kind, [], [tensor(kind, FLOAT, None)])
            for kind in ("Abs", "Neg")
        ]
        nodes.append(node("If", ["yes"], ["bent picture"], then_branch=sides[0], else_branch=sides[1]))
        arrays["yes"] = np.array(True)
        outputs.append(tensor("bent picture", FLOAT, ["n", 3, 6, 8]))
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "g", [tensor("image", FLOAT, ["n", 3, 6, 8])], outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("file") / "net.onnx")


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("declared") / "preprocess.json"
    path.write_text(json.dumps(PREPROCESS))
    return {"preprocess": str(path)}


def export(model: Path, target: str, out: Path, **more: Any) -> list[Any]:
    free = {} if "bucket" in more else {"dynamic": ["n=1:4"]}
    return [made.bundle for made in seatrial.export(model, target=target, output=out, **free, **more)]


def answers(model: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of the file itself, in this process, without anything of ours."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def check_last(model: Path, bundle: Any, batch: int) -> None:
    image = RNG.standard_normal((batch, 6, 8, 3)).astype(np.float32)
    found = seatrial.load(bundle.path).run({"image": image})
    for name, want in answers(model, np.ascontiguousarray(image.transpose(0, 3, 1, 2))).items():
        last = want.transpose(0, 2, 3, 1) if want.ndim == 4 else want
        assert found[name].shape == last.shape and np.allclose(found[name], last, atol=1e-4), name


def check_pixels(model: Path, bundle: Any) -> None:
    pixels = RNG.integers(0, 256, (1, 6, 8, 3), np.uint8)
    ready = (pixels / 255 * 2 - 1 - PREPROCESS["mean"]) / PREPROCESS["std"]
    want = answers(model, ready.transpose(0, 3, 1, 2).astype(np.float32))
    found = seatrial.load(bundle.path).run({"image": pixels})
    assert found["maps"].shape == (1, 5, 6, 8)
    assert all(np.allclose(found[name], want[name], atol=1e-4) for name in want)


def test_channels_last(file: Path, declared: dict[str, str], tmp_path: Path) -> None:
    for bundle in export(file, BOTH, tmp_path / "a", layout="nhwc", args=declared):
        assert [str(spec) for spec in bundle.inputs] == ["image: float32[n, 6, 8, 3]"]
        assert [str(spec) for spec in bundle.outputs] == ["maps: float32[n, 6, 8, 5]", "scores: float32[n, 4]"]
        assert bundle.manifest["preprocess"]["layout"] == "NHWC"
        assert "inputs and outputs of four axes are NHWC, the source's own are NCHW" in bundle.manifest["notes"]
        check_last(file, bundle, 2)


def test_pixels(file: Path, declared: dict[str, str], tmp_path: Path) -> None:
    for bundle in export(file, BOTH, tmp_path / "a", embed=True, args=declared):
        assert [str(spec) for spec in bundle.inputs] == ["image: uint8[n, 6, 8, 3]"]
        kept = bundle.manifest["preprocess"]
        assert (kept["dtype"], kept["layout"], kept["range"], kept["mean"]) == ("uint8", "NHWC", [0, 255], [0, 0, 0])
        [note] = bundle.manifest["notes"]
        assert "-1..1, mean [0.5, 0.4, 0.3], std [0.5, 0.6, 0.7], NCHW" in note
        check_pixels(file, bundle)


def test_on_tflite_too(
    file: Path, declared: dict[str, str], environment: Callable[[str], Path], tmp_path: Path
) -> None:
    environment("onnx2tf")
    pytest.importorskip("ai_edge_litert")
    check_last(file, export(file, "tflite", tmp_path / "a", layout="nhwc", bucket=["n=1"])[0], 1)
    check_pixels(file, export(file, "tflite", tmp_path / "b", embed=True, args=declared, bucket=["n=1"])[0])


def test_what_a_branch_reads_is_turned_and_names_that_are_taken_are_left(tmp_path: Path) -> None:
    model = onnx.load(str(make(tmp_path / "net.onnx", branch=True)))
    model.graph.node[1].output[0] = model.graph.node[2].input[0] = "image/inside"
    onnx.save(model, str(tmp_path / "net.onnx"))
    [bundle] = export(tmp_path / "net.onnx", "onnxruntime", tmp_path / "a", layout="nhwc")
    check_last(tmp_path / "net.onnx", bundle, 2)


def test_asking_for_what_it_has_changes_nothing(file: Path, tmp_path: Path) -> None:
    [bundle] = export(file, "onnxruntime", tmp_path / "a", layout="nchw")
    assert [str(spec) for spec in bundle.inputs] == ["image: float32[n, 3, 6, 8]"] and not bundle.manifest["notes"]


def test_a_wrong_transposition_is_caught(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is the file as it came: a graph that was changed wrongly answers otherwise."""
    from seatrial.exporter.sources import onnx_boundary

    monkeypatch.setattr(onnx_boundary, "TO", {"nchw": (0, 3, 2, 1), "nhwc": (0, 2, 3, 1)})
    with pytest.raises(SeatrialError, match="hop: capture"):
        export(file, "onnxruntime", tmp_path / "a", layout="nhwc", in_process=True)


def test_what_cannot_be_done_says_why(file: Path, declared: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SeatrialError, match="declares none"):
        export(file, "onnxruntime", tmp_path / "a", embed=True)
    old = make(tmp_path / "old.onnx", opset=6)
    with pytest.raises(SeatrialError, match="opset 6, needed: 7"):
        export(old, "onnxruntime", tmp_path / "a", embed=True, args=declared)
    with pytest.raises(UsageError, match="no get_model"):
        export(file, "onnxruntime", tmp_path / "a", args={"width": "1"})


def decided(shape: tuple[int | str, ...], preprocess: Preprocess | None = None, **asked: Any) -> Boundary:
    job = Job(path="net.onnx", name="net", folder="", **asked)
    return Boundary.make(job, preprocess, [TensorSpec("x", "float32", shape)], own="")


def test_the_layout_is_read_off_the_shape_or_asked_for() -> None:
    assert decided((1, 3, 224, 224), layout="nhwc").layout == "nhwc"
    assert decided(("n", "h", "w", 1), layout="nchw").layout == "nchw"
    assert not decided(("n", "h", "w", 1), layout="nhwc").changes
    last = Preprocess(size=4, layout="NHWC")
    assert decided((1, 3, 4, 3), last, layout="nchw").own == "nhwc"
    assert decided((1, "h", "w", "c"), last, embed=True).own == "nhwc"
    for shape in ((1, 64, 7, 7), (1, 3, 4, 4), ("n", "c", "h", "w")):
        with pytest.raises(UsageError, match="NCHW or NHWC can't be told"):
            decided(shape, layout="nhwc")
    with pytest.raises(UsageError, match=r"makes NHWC, the model takes \[1, 3, 8, 8\]"):
        decided((1, 3, 8, 8), last, embed=True)
    with pytest.raises(UsageError, match="makes NHWC"):
        decided((1, 3, "h", "w"), last, layout="nchw")
    with pytest.raises(UsageError, match="no input of four axes"):
        decided((1, 3), layout="nhwc")
    with pytest.raises(UsageError, match="one float32 picture"):
        decided((1, 3), last, embed=True)
