"""Reference outputs that prove nothing: other noise is tried first, and real samples are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core.errors import CheckFailed
from seatrial.exporter.proof import degenerate, parity, probes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def network(path: Path, scale: float, last: str, shift: float = 0.0) -> Path:
    """`x` (1, 8) → MatMul by weights of `scale` → `last` → plus `shift` → `y` (1, 5)."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(1).standard_normal((8, 5)).astype(np.float32) * np.float32(scale)
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array(shift, np.float32), "b")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node(last, ["m"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", [1, 8]), ("y", [1, 5]))]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def feeds(*arrays: Any) -> list[dict[str, np.ndarray]]:
    return [{"y": np.asarray(array, np.float32)} for array in arrays]


def test_a_saturated_network_is_asked_with_gentler_noise(tmp_path: Path) -> None:
    [made] = seatrial.export(network(tmp_path / "n.onnx", 400, "Softmax"), output=tmp_path / "out")
    [out] = made.proof.parity.outputs
    assert out.mean_db < 60
    report = (tmp_path / "out/report.md").read_text()
    assert "the noise has 0.01 times the example's scale, at which the reference output 'y' takes only" in report


def test_a_wrong_network_behind_a_saturated_softmax_is_found(tmp_path: Path) -> None:
    """Its answers to plain noise are those of the right one, to the bit."""
    runtime = pytest.importorskip("onnxruntime")
    network(tmp_path / "right.onnx", 400, "Softmax")
    network(tmp_path / "wrong.onnx", 420, "Softmax")
    right, wrong = (
        runtime.InferenceSession(str(tmp_path / f"{n}.onnx"), providers=["CPUExecutionProvider"])
        for n in ("right", "wrong")
    )

    def asked(session: Any, scale: float) -> list[dict[str, np.ndarray]]:
        noise = [np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32) * scale for i in range(4)]
        return feeds(*(session.run(None, {"x": x.astype(np.float32)})[0] for x in noise))

    assert parity.compare("fp32", list("0123"), asked(right, 1), asked(wrong, 1)).ok
    assert "takes only the ends of its range (0 and 1)" in degenerate.judge(asked(right, 1))[0][0]
    assert not parity.compare("fp32", list("0123"), asked(right, 0.01), asked(wrong, 0.01)).ok
    assert degenerate.judge(asked(right, 0.01)) == ([], [])


def test_what_is_saturated_at_every_scale_needs_real_samples(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", 1e7, "Softmax")
    with pytest.raises(CheckFailed, match="takes only the ends of its range") as caught:
        seatrial.export(path, output=tmp_path / "out")
    assert "--inputs FILE.npz" in caught.value.todo and "--evaluate" in caught.value.todo
    real = np.random.default_rng(1).standard_normal((4, 8)).astype(np.float32)
    np.savez(tmp_path / "soft.npz", x=real[:1] * 1e-8)
    np.savez(tmp_path / "hard.npz", x=real)
    [soft] = seatrial.export(path, inputs=tmp_path / "soft.npz", output=tmp_path / "soft")
    [hard] = seatrial.export(path, evaluate=tmp_path / "hard.npz", output=tmp_path / "hard")
    assert not soft.bundle.manifest["notes"]
    assert "its decisions are proven, not its values" in (hard.bundle.path / "report.md").read_text()


def test_an_output_that_hardly_differs_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"'y' hardly differs between main samples \(their mean would pass, at"):
        seatrial.export(network(tmp_path / "n.onnx", 1, "Tanh", 1e5), output=tmp_path / "out")


def test_a_weak_bar_is_said_to_be_weak(tmp_path: Path) -> None:
    path = network(tmp_path / "n.onnx", 1, "Tanh", 300)
    made = seatrial.export(path, precision=["fp32", "fp16"], output=tmp_path / "out")
    said = ["he bar says little of output 'y'" in (one.bundle.path / "report.md").read_text() for one in made]
    assert said == [False, True]


@pytest.mark.parametrize("kind", ["mask", "many outputs", "ordinary"])
def test_hard_outputs_by_nature_are_no_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    if kind == "mask":  # some of so many decisions are close ones
        assert degenerate.judge(feeds(*(rng.standard_normal((4, 1, 20, 20)) > 0))) == ([], [])
    elif kind == "ordinary":
        assert degenerate.judge(feeds(*rng.standard_normal((4, 1, 5)))) == ([], [])
    else:
        both = [{**out, "n": np.array([7.0], np.float32)} for out in feeds(*rng.standard_normal((4, 1, 5)))]
        problems, [note] = degenerate.judge(both)
        assert not problems and note == "the output 'n' is the same for all main samples: nothing is proven of it"
        # Alone, a count that never changes is all there is.
        assert degenerate.judge([{"n": out["n"]} for out in both])[0]


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 6), (-3, -2)])
def test_the_ends_of_any_range_count(low: float, high: float) -> None:
    hard = np.random.default_rng(0).integers(0, 2, (4, 1, 8)) * (high - low) + low
    assert "takes only the ends" in degenerate.judge(feeds(*hard))[0][0]
    assert degenerate.judge(feeds(*(hard + np.random.default_rng(1).standard_normal((4, 1, 8)) * 0.01))) == ([], [])


def test_noise_of_another_scale_leaves_example_and_real_samples(tmp_path: Path) -> None:
    from seatrial.core.specs import TensorSpec

    kinds = ("x", "float32", None, None), ("ids", "int64", 0, 30), ("p", "uint8", None, None)
    specs = [TensorSpec(name, dtype, (1, 8), low, high) for name, dtype, low, high in kinds]
    example = probes.example_feed(specs, {})
    main, _ = probes.build(specs, example, [example])
    other = probes.rescaled(specs, example, main, 0.1)
    assert [name for name, _ in other] == ["example", "noise 0 x 0.1", "noise 1 x 0.1", "noise 2 x 0.1", "real 0"]
    for (_, was), (name, now) in zip(main, other, strict=True):
        if name.startswith("noise"):
            np.testing.assert_allclose(now["x"], was["x"] * 0.1, rtol=1e-5)
            assert np.array_equal(now["ids"], was["ids"]) and np.ptp(now["p"]) < 30 < np.ptp(was["p"])
        else:
            assert now is was


def test_integers_need_the_share_of_their_precision() -> None:
    want = [{"y": np.arange(20)}]
    have = [{"y": np.where(np.arange(20) == 3, 0, np.arange(20))}]
    for precision, ok in (("fp32", False), ("fp16", True), ("int8", True)):
        assert parity.compare(precision, ["a"], want, have).ok is ok
    assert "30.00% of the integers are equal, needed 80%" in parity.compare(
        "int8", ["a"], want, [{"y": np.where(np.arange(20) > 5, 0, np.arange(20))}]).problems[0]  # fmt: skip
