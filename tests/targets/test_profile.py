"""Profiles of real models on the three runtimes: every operator, its time, place and precision."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core import samples
from seatrial.core.bundle import Bundle
from seatrial.targets import litert_profile, require
from seatrial.targets.base import is_heavy
from seatrial.targets.litert_profile import BEGIN, DELEGATED, INVOKE, Event, _by_run, described, joined, summed
from seatrial.targets.onnxruntime import _within
from seatrial.targets.openvino import _since
from seatrial.targets.profile import PARTS, Operator, Part, Profile, in_parts, profile_of

SIZE, LAYERS, RUNS = 512, 4, 20
FEED = {"x": np.random.default_rng(1).standard_normal((64, SIZE)).astype(np.float32)}
WEIGHTS = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32) / np.float32(np.sqrt(SIZE))


def onnx_chain(path: Path) -> Path:
    """MatMul and Tanh in turn: about 2 ms."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes = []
    for i in range(LAYERS):
        at, out = f"t{i - 1}" if i else "x", f"t{i}" if i < LAYERS - 1 else "y"
        nodes += [
            helper.make_node("MatMul", [at, "w"], [f"m{i}"], name=f"layer{i}"),
            helper.make_node("Tanh", [f"m{i}"], [out], name=f"act{i}"),
        ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, SIZE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHTS, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def tflite_chain(path: Path) -> Path:
    """Fully connected layers in turn, the first for a free batch: about 2 ms."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")

    def tensor(name: str, shape: list[int], buffer: int, free: bool = False) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        made.shapeSignature, made.hasRank = ([-1, *shape[1:]] if free else None), True
        return made

    def layer(at: int, out: int) -> Any:
        made = schema.OperatorT()
        made.inputs, made.outputs, made.opcodeIndex = [at, 1, -1], [out], 0
        made.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        made.builtinOptions = schema.FullyConnectedOptionsT()
        return made

    graph, code, model = schema.SubGraphT(), schema.OperatorCodeT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    names = [*(f"layer{i}" for i in range(LAYERS - 1)), "y"]
    made = [tensor(name, [1, SIZE], 0, free=True) for name in names]
    graph.tensors = [tensor("x", [1, SIZE], 0, free=True), tensor("w", [SIZE, SIZE], 1), *made]
    graph.operators = [layer(0 if i == 0 else i + 1, i + 2) for i in range(LAYERS)]
    graph.inputs, graph.outputs = [0], [LAYERS + 1]
    empty, weights = schema.BufferT(), schema.BufferT()
    weights.data = np.frombuffer(WEIGHTS.tobytes(), np.uint8)
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [empty, weights]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


CASES = {
    "onnxruntime": (onnx_chain, "a.onnx", "CPUExecutionProvider", "MatMul"),
    "openvino": (onnx_chain, "a.onnx", "CPU", "FullyConnected"),
    "tflite": (tflite_chain, "a.tflite", "XNNPACK", "Fully Connected GEMM"),
}


def profiled(target: str, path: Path, feed: dict[str, np.ndarray], **settings: Any) -> tuple[Profile, float]:
    """A profile, and the fastest plain inference before and after it in µs: the one that nothing disturbed."""
    session: Any = require(target).open(path, require(target).settings("fp32") | settings)
    session.bind(feed)
    samples_ns: list[int] = []

    def time_it() -> None:
        for _ in range(20):
            start = time.perf_counter_ns()
            session.step()
            samples_ns.append(time.perf_counter_ns() - start)

    time_it()
    found: Profile = session.profile(RUNS)
    time_it()
    session.close()
    return found, min(samples_ns) / 1e3


@pytest.mark.parametrize("target", CASES)
def test_every_operator_is_there_and_together_they_take_what_an_inference_takes(target: str, tmp_path: Path) -> None:
    write, name, where, op = CASES[target]
    found, plain_us = profiled(target, write(tmp_path / name), FEED)
    assert json.loads(json.dumps(found)) == found
    assert (found["runs"], found["why"]) == (RUNS, "")
    heavy = [node for node in found["nodes"] if node["op"] == op]
    assert len(heavy) == LAYERS
    assert {(node["where"], node["precision"], node["calls"]) for node in heavy} == {(where, "fp32", 1.0)}
    wanted = {"y", *(f"layer{i}" for i in range(LAYERS - 1))} if target == "tflite" else None
    assert {node["name"] for node in heavy} == (wanted or {f"layer{i}" for i in range(LAYERS)})
    assert not {"Parameter", "Constant", "Result"} & {node["op"] for node in found["nodes"]}
    times = [node["us"] for node in found["nodes"]]
    assert times == sorted(times, reverse=True)
    assert plain_us / 3 < sum(times) < 3 * found["total_us"]
    assert found["unaccounted"] == pytest.approx(max(0.0, 1 - sum(times) / found["total_us"]))


@pytest.mark.parametrize("target", CASES)
def test_what_runs_in_int8_is_named_so(target: str, bundles: Path) -> None:
    bundle = Bundle.read(bundles / f"{target}-int8")
    session: Any = require(target).open(bundle.model, bundle.settings)
    session.bind(samples.load(bundle.golden[0])[0])
    heavy = [n for n in session.profile(2)["nodes"] if is_heavy(n["op"]) or n["op"].startswith("Fully")]
    placed = session.placement()
    session.close()
    assert len(heavy) == sum(count for op, count in placed["ops"].items() if is_heavy(op)) == 2
    assert {node["precision"] for node in heavy} == {"int8"}


@pytest.mark.parametrize("delegate", ["none", "reference"])
def test_without_its_delegate_tflite_names_its_own_operators(delegate: str, tmp_path: Path) -> None:
    feed = {"x": FEED["x"][:2]}
    found, _ = profiled("tflite", tflite_chain(tmp_path / "a.tflite"), feed, delegate=delegate)
    assert {(n["op"], n["where"], n["precision"]) for n in found["nodes"]} == {("FULLY_CONNECTED", "builtin", "fp32")}
    assert [n["name"] for n in sorted(found["nodes"], key=lambda n: n["name"])] == ["layer0", "layer1", "layer2", "y"]


def test_a_tflite_runtime_without_a_known_profiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_profile, "VERSIONS", ("0.",))
    found, _ = profiled("tflite", tflite_chain(tmp_path / "a.tflite"), FEED)
    assert found["nodes"] == []
    assert found["why"] == "ai-edge-litert gives no times of operators"


def test_a_loop_counts_by_what_is_in_it(tmp_path: Path) -> None:
    """The loop's own event holds its body's: together they would count twice."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    value: Callable[..., Any] = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "w"], ["s_out"], name="inside"),
            helper.make_node("Identity", ["go"], ["go_out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("s", TensorProto.FLOAT, [64, SIZE]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("s_out", TensorProto.FLOAT, [64, SIZE])],
    )
    constants = {"n": np.array(3), "yes": np.array(True), "w": WEIGHTS}
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "yes", "x"], ["y"], name="loop", body=body)],
        "loop",
        [value("x", TensorProto.FLOAT, [64, SIZE])],
        [value("y", TensorProto.FLOAT, [64, SIZE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path = tmp_path / "loop.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    found, _ = profiled("onnxruntime", path, FEED)
    assert {node["name"]: node["calls"] for node in found["nodes"] if is_heavy(node["op"])} == {"inside": 3.0}
    assert "loop" not in {node["name"] for node in found["nodes"]}


def test_events_of_onnx_runtime_are_those_of_the_chosen_runs_after_the_one_that_binds() -> None:
    def event(name: str, ts: int, dur: int, cat: str = "Node") -> dict[str, Any]:
        return {"name": name, "ts": ts, "dur": dur, "cat": cat}

    runs = [event("model_run", 100 * i, 90, "Session") for i in range(4)]
    nodes = [event(f"{i}_kernel_time", 100 * i + 5, 80) for i in range(4)]
    others = [event(f"{i}_fence_before", 100 * i + 5, 1) for i in range(4)]
    events = [*nodes, *others, *reversed(runs)]
    assert _within(events, Part(1, 2, 1.0)) == nodes[2:]
    assert _within(events, Part(0, 1, 1.0)) == nodes[1:2]


def test_means_of_openvino_over_the_later_inferences_alone() -> None:
    """A CPU's counters are means over all, cut to whole µs; 100, then 10, 20 and 30 have a mean of 40."""
    assert _since({"a": 100.0}, 1, {"a": 40.0}, 4) == {"a": 20.5}
    assert _since({}, 1, {"late": 7.0}, 4) == {"late": 7.5}
    assert _since({"a": 90.0}, 1, {"a": 2.0}, 4) == {"a": 0.0}


def test_runs_are_cut_into_parts_that_are_timed() -> None:
    naps, left = [0, 0, 4, 4, *[0] * 16], []
    parts = in_parts(lambda: time.sleep(naps.pop(0) / 1e3), 20, after=lambda: left.append(len(naps)))
    assert [(part.first, part.runs) for part in parts] == [(2 * i, 2) for i in range(PARTS)]
    assert parts[1].us >= 4000
    assert left == [*range(18, -1, -2)]


def test_an_interruption_stands_at_no_operator() -> None:
    def node(name: str, us: float) -> Operator:
        return {"name": name, "op": "Conv", "where": "CPU", "precision": "", "us": us, "calls": 1.0}

    found = [[node("a", 10), node("b", 20), node("b", 5)] for _ in range(PARTS)]
    found[3][0]["us"] = found[7][2]["us"] = 3000
    parts = [Part(i, 1, 3040.0 if i in (3, 7) else 40.0) for i in range(PARTS)]
    profile = profile_of(found, parts, "a test")
    assert [(n["name"], n["us"]) for n in profile["nodes"]] == [("b", 20), ("a", 10), ("b", 5)]
    assert (profile["total_us"], profile["unaccounted"], profile["runs"]) == (40.0, 0.125, PARTS)


def test_tags_of_xnnpack_tell_kernel_and_type() -> None:
    assert described("Convolution (NHWC, F32) IGEMM") == ("Convolution IGEMM", "fp32")
    assert described("Fully Connected (NC, QS8, QC8W) GEMM") == ("Fully Connected GEMM", "int8")
    assert described("Fully Connected (NC, QD8, F32, QC8W) GEMM") == ("Fully Connected GEMM", "int8 weights")
    assert described("Transpose (ND, X32) Transpose") == ("Transpose", "")
    assert described("DEQUANTIZE") == ("DEQUANTIZE", "")


def test_delegated_operators_are_joined_by_order_where_counts_allow_it() -> None:
    conv, add, matmul = "Convolution (NHWC, F32) IGEMM", "Add (ND)", "Batch Matrix Multiply (NC, F32) GEMM"
    assert joined([conv, add, matmul], ["CONV_2D", "ADD", "BATCH_MATMUL"]) == [0, 1, 2]
    assert joined([add, conv, matmul], ["CONV_2D", "BATCH_MATMUL"]) == [None, 0, 1]
    assert joined([conv, conv], ["CONV_2D", "ADD"]) == [None, None]


def test_events_are_cut_where_an_inference_begins_and_nowhere_else() -> None:
    begin, telemetry = Event("Invoke", BEGIN, 9, 0, 0), Event("Invoke", 32, 0, 0, 0)
    add, loop = Event("Add", DELEGATED, 3, 0, 0), Event("WHILE", INVOKE, 8, 1, 0)
    recorded = [add, begin, add, telemetry, loop, begin, add, add, begin]
    assert _by_run(recorded, Part(0, 3, 1.0)) == [[add], [add, add], []]
    assert _by_run(recorded, Part(1, 1, 1.0)) == [[add, add]]


def test_parts_of_a_delegate_count_from_zero_and_stay_apart() -> None:
    run = [Event("Add", DELEGATED, 3, 0, 0), Event("SOFTMAX", INVOKE, 5, 1, 0), Event("Add", DELEGATED, 7, 0, 0)]
    again = [event._replace(us=event.us + 2) for event in run]
    assert [(event.tag, us) for event, us in summed([run, again])] == [("Add", 4.0), ("SOFTMAX", 6.0), ("Add", 8.0)]
