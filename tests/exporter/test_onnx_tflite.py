"""ONNX → TFLite by onnx2tf: right names, shapes and values, or a reason; never something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from seatrial.core import process, samples
from seatrial.core.errors import CannotDo, Unsupported
from seatrial.core.specs import TensorSpec
from seatrial.devices.local import LocalDevice
from seatrial.exporter.convert import STEPS, routes, tflite_boundary
from seatrial.exporter.convert.onnx_tflite import check_sizes, fit_output
from seatrial.exporter.proof import parity

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
node = onnx.helper.make_node
RNG = np.random.default_rng(0)


def value(name: str, shape: list[int | None], kind: int = FLOAT) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def write(path: Path, nodes: list, inputs: list, outputs: list, weights: dict[str, np.ndarray]) -> Path:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


class Case:
    """A program as the exporter hands it over, and what became of it."""

    def __init__(self, folder: Path, model: Path, feeds: list[dict[str, np.ndarray]]) -> None:
        self.folder, self.model, self.out = folder, model, folder / "made" / "model.tflite"
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        self.wanted = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
        specs = [
            [TensorSpec(k, str(v.dtype), v.shape).to_dict() for k, v in d.items()] for d in (feeds[0], self.wanted[0])
        ]
        (folder / "program.json").write_text(json.dumps({"inputs": specs[0], "outputs": specs[1]}))
        samples.save(folder / "main_in.npz", feeds)
        self.out.parent.mkdir()

    def convert(self, python: Path) -> None:
        args = {"source": str(self.model), "out": str(self.out), "program": str(self.folder / "program.json")}
        step = next(step for step in STEPS if step.environment == "onnx2tf")
        process.call(step.function, args, workdir=self.folder / "log", label="the conversion", python=python)

    def proven(self) -> parity.Parity:
        """Against ONNX Runtime, on LiteRT."""
        pytest.importorskip("ai_edge_litert")
        settings = {"threads": 1, "delegate": "xnnpack"}
        job = {"kind": "proof", "target": "tflite", "artifact": str(self.out), "runs": [{"settings": settings}]}
        files = {"inputs": str(self.folder / "main_in.npz"), "out": str(self.folder / "proof")}
        run = LocalDevice().run(job | files)["runs"][0]
        assert run["error"] is None, run["error"]
        names = [f"sample {i}" for i in range(len(self.wanted))]
        return parity.compare("fp32", names, self.wanted, samples.load(run["outputs"]))


@pytest.fixture(scope="module")
def onnx2tf(environment: Callable[[str], Path]) -> Path:
    return environment("onnx2tf")


def test_the_route_is_there_and_tried_after_the_direct_one() -> None:
    assert [[step.label for step in route] for route in routes("onnx", "tflite")] == [["onnx → tflite"]]
    assert [step.label for step in routes("torch", "tflite")[0]] == ["torch → tflite"]
    assert ["torch → onnx", "onnx → tflite"] in [[step.label for step in route] for route in routes("torch", "tflite")]


def test_free_dimensions_are_refused_with_the_way_out() -> None:
    with pytest.raises(Unsupported) as error:
        check_sizes([TensorSpec("ids", "int64", (1, "length"))], "the conversion")
    assert "free dimension" in error.value.found and "--bucket ids.1=" in error.value.todo


def test_axes_names_scalars_and_computed_shapes_survive(onnx2tf: Path, tmp_path: Path) -> None:
    """A mask, whose channel onnx2tf moves; a picture; a scalar in; a batch that the file leaves free."""
    nodes = [
        node("Conv", ["picture", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("ConvTranspose", ["r", "v"], ["t"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Add", ["t", "bias"], ["shifted"]),
        node("Sigmoid", ["shifted"], ["mask"]),
        node("Mul", ["c", "gain"], ["z picture"]),
        node("Shape", ["c"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["batch"]),
        node("Concat", ["batch", "rest"], ["to"], axis=0),
        node("Reshape", ["c", "to"], ["flat"]),
        node("MatMul", ["flat", "h"], ["a/scores"]),
    ]
    weights = {"w": weight(5, 3, 3, 3), "v": weight(5, 1, 2, 2), "bias": weight(1, 1, 1, 1), "h": weight(240, 4)}
    weights |= {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([-1])}
    inputs = [value("picture", [None, 3, 6, 8]), value("gain", [])]
    outputs = [value("z picture", [None] * 4), value("mask", [None] * 4), value("a/scores", [None] * 2)]
    model = write(tmp_path / "model.onnx", nodes, inputs, outputs, weights)
    feeds = [{"picture": weight(2, 3, 6, 8), "gain": np.array(0.5 + i, np.float32)} for i in range(3)]
    case = Case(tmp_path, model, feeds)
    assert [array.shape for array in case.wanted[0].values()] == [(2, 5, 6, 8), (2, 1, 12, 16), (2, 4)]
    case.convert(onnx2tf)
    check = case.proven()
    assert not check.problems and check.sqnr_db and check.sqnr_db > 100
    ports = tflite_boundary.ports(tflite_boundary.read(case.out), "inputs")
    assert {str(port) for port in ports} == {"picture: float32[2, 3, 6, 8]", "gain: float32[]"}
    assert [path.name for path in case.out.parent.iterdir()] == ["model.tflite"]


def test_token_ids_and_the_same_bytes_again(onnx2tf: Path, tmp_path: Path) -> None:
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        node("Softmax", ["t"], ["y"], axis=-1),
    ]
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        model = write(
            tmp_path / name / "m.onnx", nodes, [value("ids", [2, 7], INT64)], [value("y", [None] * 3)], {"table": TABLE}
        )
        case = Case(tmp_path / name, model, [{"ids": np.arange(14).reshape(2, 7) % (5 + i)} for i in range(2)])
        case.convert(onnx2tf)
        files.append(case.out.read_bytes())
        check = case.proven()
        assert not check.problems, check.problems
    assert files[0] == files[1]


TABLE = weight(50, 6)


def test_an_operator_that_it_does_not_know_is_named(onnx2tf: Path, tmp_path: Path) -> None:
    nodes = [
        node("SequenceConstruct", ["x", "x"], ["both"]),
        node("Cast", ["x"], ["i"], to=INT64),
        node("SequenceAt", ["both", "i"], ["y"], name="pick"),
    ]
    model = write(tmp_path / "m.onnx", nodes, [value("x", [])], [value("y", [])], {})
    with pytest.raises(CannotDo) as error:
        Case(tmp_path, model, [{"x": np.array(1, np.float32)}]).convert(onnx2tf)
    assert "SequenceConstruct" in error.value.found
    assert not list((tmp_path / "made").glob("*.tflite"))


def test_a_branch_on_data_is_named_or_does_not_pass_for_right(onnx2tf: Path, tmp_path: Path) -> None:
    """The two branches answer in other shapes, which TFLite can't."""
    yes = onnx.helper.make_graph([node("Mul", ["x", "x"], ["a"])], "yes", [], [value("a", [1, 4])])
    no = onnx.helper.make_graph([node("ReduceSum", ["x"], ["b"], keepdims=1)], "no", [], [value("b", [1, 1])])
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=BOOL),
        node("If", ["c"], ["y"], then_branch=yes, else_branch=no),
    ]
    model = write(tmp_path / "m.onnx", nodes, [value("x", [1, 4])], [value("y", [None] * 2)], {})
    case = Case(tmp_path, model, [{"x": weight(1, 4)}, {"x": np.zeros((1, 4), np.float32)}])
    try:
        case.convert(onnx2tf)
    except CannotDo as error:
        assert "If" in error.found
    else:
        assert case.proven().problems


@pytest.fixture
def plain(onnx2tf: Path, tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A model of (2, 3, 4) → (2, 3, 4), one input, and what it answers."""
    model = write(
        tmp_path / "m.onnx", [node("Sin", ["x"], ["y"])], [value("x", [2, 3, 4])], [value("y", [2, 3, 4])], {}
    )
    case = Case(tmp_path, model, [{"x": weight(2, 3, 4)}])
    case.convert(onnx2tf)
    return case.out, samples.load(tmp_path / "main_in.npz")[0]["x"], case.wanted[0]["y"]


def test_what_is_put_before_and_behind_computes_the_same(plain: tuple[Path, np.ndarray, np.ndarray]) -> None:
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    path, x, y = plain
    model = tflite_boundary.read(path)
    [entry], [leave] = (tflite_boundary.ports(model, side) for side in ("inputs", "outputs"))
    tflite_boundary.reshape_input(model, entry, (6, 4))
    tflite_boundary.transpose_output(model, leave, (0, 2, 1))
    [leave] = tflite_boundary.ports(model, "outputs")
    assert str(leave) == "y: float32[2, 4, 3]"
    tflite_boundary.reshape_output(model, leave, (8, 3))
    interpreter = interpreters.Interpreter(model_content=tflite_boundary.written(model))
    found = interpreter.get_signature_runner()(x=x.reshape(6, 4))["y"]
    np.testing.assert_allclose(found, y.transpose(0, 2, 1).reshape(8, 3), rtol=1e-5)
    first, last = model.subgraphs[0].operators[0], model.subgraphs[0].operators[-1]
    assert model.subgraphs[0].inputs[0] in first.inputs  # they run in this order
    assert model.subgraphs[0].outputs[0] in last.outputs


def test_the_values_decide_how_an_output_is_put_right(plain: tuple[Path, np.ndarray, np.ndarray]) -> None:
    interpreters = pytest.importorskip("ai_edge_litert.interpreter")
    path, x, y = plain
    for wanted in (y, y.transpose(0, 2, 1), y.reshape(2, 4, 3), y.reshape(6, 4)):
        model = tflite_boundary.read(path)
        [port] = tflite_boundary.ports(model, "outputs")
        assert fit_output(model, port, y, wanted)
        interpreter = interpreters.Interpreter(model_content=tflite_boundary.written(model))
        np.testing.assert_allclose(interpreter.get_signature_runner()(x=x)["y"], wanted, rtol=1e-5)
    assert not fit_output(model, port, y, y[:1])
