"""Benches of tiny real models, with models that fail."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from seatrial.core.errors import NothingMeasured, UsageError
from seatrial.devices.arms import Arm, Plan, arm_from_path
from seatrial.devices.bench import bench
from seatrial.devices.store import Store

FEW = Plan(launches=2, rounds=3, block_ms=2, warm_s=0.01)


def test_bench_orders_by_speed_and_says_what_is_decided(model, tmp_path, quiet):
    quiet(lambda artifact: 1.1 if "large" in artifact else 1.0)
    small, large = model("small.onnx", 10), model("large.onnx", 11)
    result = bench(
        [large, small, tmp_path / "absent.onnx"], plan=replace(FEW, launches=3), seed=1, store=tmp_path / "s.db"
    )
    assert [arm.arm.name for arm in result.arms] == ["small.onnx", "large.onnx", "absent.onnx"]
    assert result.arms[0].ran_precision == "fp32"
    assert result.arms[2].status == "unusable"
    assert [pair.decided for pair in result.pairs] == [True]
    assert result.pairs[0].text.startswith("small.onnx is faster than large.onnx")
    assert result.canary is not None
    assert json.loads(json.dumps(result.to_dict()))["schema"] == "seatrial.bench/1"
    assert len(Store(tmp_path / "s.db").find(session=result.session)) == 9  # a duplicate of the first too


def test_an_arm_that_failed_is_not_tried_again_and_the_others_go_on(model, tmp_path, quiet):
    quiet(lambda artifact: 1.0)
    good = arm_from_path(model("a.onnx"), tmp_path / "in.npz", "a")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    bad = Arm("b", "onnxruntime", str(tmp_path / "broken.onnx"), "id", good.settings, good.inputs)
    result = bench([bad, good, good.named("c")], plan=replace(FEW, launches=3), seed=1)
    assert [(arm.arm.name, arm.status) for arm in result.arms[2:]] == [("b", "error")]
    assert [("b" in launch.arms, launch.arms["a"].ok) for launch in result.launches] == [
        (True, True),
        (False, True),
        (False, True),
    ]
    assert result.canary is not None  # of the first that works
    assert result.canary.n == 2


def test_bench_of_one_that_cannot_be_tried_is_its_own_error(tmp_path):
    with pytest.raises(UsageError):
        bench([tmp_path / "absent"])
    with pytest.raises(NothingMeasured):
        bench([tmp_path / "absent", tmp_path / "other"])


@pytest.mark.parametrize("size", ["launches", "rounds"])
def test_bench_does_not_take_nothing_for_the_default(model, size):
    with pytest.raises(UsageError, match="give at least 1"):
        bench([model()], **{size: 0})
