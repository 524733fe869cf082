"""What operators took: joined with modules, and two profiles beside each other."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.devices.arms import Arm, Plan, arm_from_path
from seatrial.devices.launches import OpenArm
from seatrial.devices.onnx_names import makers
from seatrial.devices.operators import changes, module_of, runs_of, with_modules
from seatrial.devices.sitting import Sitting
from seatrial.targets.profile import Operator, Part, Profile, profile_of

FEW = Plan(launches=2, rounds=3, splits=1, block_ms=2, warm_s=0.01)


def node(name: str, op: str, us: float, precision: str = "fp32") -> Operator:
    return {"name": name, "op": op, "where": "CPU", "precision": precision, "us": us, "calls": 1.0}


def profile(*nodes: Operator) -> Profile:
    return profile_of([nodes], [Part(0, 5, sum(n["us"] for n in nodes))], "a test")


def write_layers(path: Path, widths: dict[str, int]) -> Path:
    """Pairs of MatMul into a width and back, named after the layer."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    weights, at = [], "x"
    for name, width in widths.items():
        for part, shape in (("up", (256, width)), ("down", (width, 256))):
            weights.append(numpy_helper.from_array(np.full(shape, 1 / shape[0], np.float32), f"{name}_{part}_w"))
            nodes.append(helper.make_node("MatMul", [at, weights[-1].name], [f"{name}_{part}"], name=f"{name}.{part}"))
            at = f"{name}_{part}"
    nodes.append(helper.make_node("Tanh", [at], ["y"], name="act"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 256]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> list[Arm]:
    """A model, and the same with one layer 16 times as wide."""
    pytest.importorskip("onnxruntime")
    files = [
        write_layers(tmp_path / "base.onnx", {"a": 128, "b": 128, "c": 128}),
        write_layers(tmp_path / "candidate.onnx", {"a": 128, "b": 2048, "c": 128}),
    ]
    return [arm_from_path(file, tmp_path / f"{file.stem}.npz", file.stem) for file in files]


def test_a_planted_slow_operator_is_the_first_of_what_changed(pair, tmp_path):
    (tmp_path / "names.json").write_text('{"b.up": "blocks.b.up", "b.down": "blocks.b.down"}')
    with Sitting(FEW) as sitting:
        base, candidate = (sitting.profile(arm) for arm in pair)
    found = changes(base, candidate)
    assert len(found) == 7
    assert {change.module for change in found[:2]} == {"blocks.b.up", "blocks.b.down"}
    assert found[1].more_us > 2 * abs(found[2].more_us)
    assert "blocks.b.up (MatMul): " in " ".join(change.text for change in found[:2])
    assert base["runs"] >= 10


def test_a_runtime_that_dies_while_it_profiles_is_data(pair, monkeypatch):
    ask = OpenArm.ask

    def killed(self: OpenArm, op: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        if op == "profile":
            assert self.worker is not None
            os.kill(self.worker.pid, signal.SIGKILL)
        return ask(self, op, timeout_s, **arguments)

    monkeypatch.setattr(OpenArm, "ask", killed)
    with Sitting(FEW) as sitting:
        found = sitting.profile(pair[0])
    assert found["nodes"] == []
    assert found["why"].startswith("profiling failed (signal)")


def test_an_arm_that_does_not_open_has_no_profile_but_a_reason(pair, tmp_path):
    (tmp_path / "base.onnx").write_bytes(b"broken")
    with Sitting(FEW) as sitting:
        found = sitting.profile(pair[0])
    assert found["nodes"] == []
    assert "open" in found["why"]


def test_what_is_new_gone_or_faster_is_told():
    base = profile(node("a", "Conv", 100), node("b", "Conv", 50), node("old", "Relu", 5))
    candidate = profile(node("a", "QLinearConv", 30, "int8"), node("b", "Conv", 90), node("q", "Quantize", 20))
    found = changes(base, candidate)
    assert [change.text for change in found] == [
        "+40 us  b (Conv): 50 us → 90 us",
        "+20 us  q (Quantize): new, 20 us",
        "-5 us  old (Relu): gone, 5 us",
        "-70 us  a (Conv → QLinearConv): 100 us → 30 us, fp32 → int8",
    ]
    assert found[0].to_dict()["more_us"] == 40


def test_operators_without_a_common_name_are_joined_by_kind():
    base = profile(node("", "Conv", 10), node("x1", "Conv", 10), node("same", "Gemm", 3))
    candidate = profile(node("", "Conv", 30), node("y1", "Conv", 15), node("y2", "Conv", 5), node("same", "Gemm", 3))
    assert [change.text for change in changes(base, candidate)] == [
        "+30 us  2 and 3 Conv: 20 us → 50 us",
        "+0 us  same (Gemm): 3 us → 3 us",
    ]


@pytest.mark.parametrize("name", ["MatMul_{}", "Reorder_token_{}", "node_Conv_{}/WithoutBiases", "a;b;{}"])
def test_counted_names_join_only_where_nothing_was_added(name: str):
    """An operator in front gives all behind it another number: 5 is another one then."""
    base = profile(node(name.format(5), "MatMul", 10), node(name.format(6), "MatMul", 20))
    same = profile(node(name.format(5), "MatMul", 15), node(name.format(6), "MatMul", 20))
    more = profile(*base["nodes"], node(name.format(7), "MatMul", 40))
    assert changes(base, same)[0].text == f"+5 us  {name.format(5)} (MatMul): 10 us → 15 us"
    assert [change.text for change in changes(base, more)] == ["+40 us  2 and 3 MatMul: 30 us → 70 us"]


def test_modules_join_what_names_do_not():
    base = profile({**node("node_Conv_5", "Conv", 10), "module": "stem"}, {**node("n6", "Relu", 2), "module": "act"})
    candidate = profile(
        {**node("node_Conv_9", "QLinearConv", 25, "int8"), "module": "stem"}, {**node("n7", "Relu", 2), "module": "act"}
    )
    first, second = changes(base, candidate)
    assert first.text == "+15 us  stem (Conv → QLinearConv): 10 us → 25 us, fp32 → int8"
    assert (second.module, second.more_us) == ("act", 0)


def test_modules_are_found_behind_what_runtimes_make_of_names(tmp_path):
    names = {"n4": "bn1.act", "node_Conv_8": "blocks.0.conv"}
    for name in (
        "node_Conv_8",
        "node_Conv_8_token_3",
        "node_Conv_8_nchwc",
        "fused node_Conv_8",
        "node_Conv_8/WithoutBiases",
    ):
        assert module_of(name, names) == "blocks.0.conv"
    assert module_of("n4_99", names) == ""
    assert module_of("node_Conv_80", names) == ""
    found = with_modules(profile(node("n4", "Relu", 1)), tmp_path / "model.onnx")  # a raw file: no names beside it
    assert found["nodes"][0]["module"] == ""


def test_tensors_of_an_onnx_file_stand_for_the_nodes_that_make_them(tmp_path):
    """ONNX Runtime calls a convolution in its own layout after its output."""
    file = write_layers(tmp_path / "model.onnx", {"a": 8, "b": 300})
    made = {f"{name}_{part}": f"{name}.{part}" for name in "ab" for part in ("up", "down")}
    assert makers(file) == {**made, "y": "act"}
    (tmp_path / "names.json").write_text('{"a.up": "blocks.a", "act": "head.act"}')
    nodes = with_modules(profile(node("a_up_nchwc", "Conv", 2), node("a_down_nchwc", "Conv", 1)), file)["nodes"]
    assert [n["module"] for n in nodes] == ["blocks.a", ""]


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_half_an_onnx_file_is_an_error_and_never_half_an_answer(size: int, tmp_path: Path):
    file = write_layers(tmp_path / "model.onnx", {"a": 8})
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises((ValueError, OSError)):
        makers(file)


def test_a_profile_runs_ten_blocks_but_neither_too_few_nor_too_many():
    assert [runs_of(k) for k in (None, 1, 3, 400)] == [10, 10, 30, 200]
