"""Comparisons of tiny real models."""

from __future__ import annotations

import json

import pytest
from seatrial.core.errors import UsageError
from seatrial.devices.arms import Arm, Plan, arm_from_path
from seatrial.devices.compare import compare
from seatrial.devices.gate import Verdict

FEW = Plan(launches=2, rounds=3, splits=1, block_ms=2, warm_s=0.01)


def test_compare_is_green_for_less_work_and_says_what_it_would_have_seen(model, quiet):
    quiet(lambda artifact: 4.0 if "a.onnx" in artifact else 1.0)
    result = compare(model("a.onnx", 40), model("b.onnx", 10), plan=FEW, seed=1)
    assert result.verdict == Verdict.PASS, result.decision
    assert result.decision.ratio is not None
    assert result.decision.ratio[0] == pytest.approx(0.25, abs=0.01)
    assert result.decision.detectable is not None
    assert len(result.launches) == 5
    assert result.to_dict()["verdict"] == "PASS"


@pytest.mark.parametrize("margins", [{"detect": 0}, {"tolerate": 0.05}, {"tolerate": 0.1, "quick": True}])
def test_margins_that_make_no_sense_are_refused_before_anything_is_read(margins, tmp_path):
    with pytest.raises(UsageError, match="less than detect"):
        compare(tmp_path / "absent", tmp_path / "absent", **margins)


def test_compare_with_no_baseline_is_new_and_measures_nothing(model, tmp_path):
    result = compare(tmp_path / "absent", model())
    assert result.verdict == Verdict.NEW
    assert "absent" in result.decision.reason
    assert result.launches == []
    assert json.loads(json.dumps(result.to_dict()))["base"]["status"] == "missing"
    with pytest.raises(UsageError):  # what is there and is no model is a mistake, not the first of its kind
        compare(tmp_path, model())
    with pytest.raises(UsageError):
        compare(tmp_path / "absent", tmp_path / "absent")


def test_compare_is_missing_when_the_candidate_does_not_run(model, tmp_path):
    broken = model("broken.onnx")
    good = arm_from_path(model("a.onnx"), tmp_path / "in.npz", "a")
    broken.write_bytes(b"no model")
    bad = Arm("b", "onnxruntime", str(broken), "id", good.settings, good.inputs)
    result = compare(good, bad, plan=FEW)
    assert result.verdict == Verdict.MISSING
    assert "candidate did not produce" in result.decision.reason
    assert len(result.launches) == 1
