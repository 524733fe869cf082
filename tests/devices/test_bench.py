"""Benches of tiny real models, with models that fail."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from seatrial.core.errors import MissingPart, NothingMeasured, UsageError
from seatrial.devices import peak
from seatrial.devices.arms import Arm, Plan, arm_from_path
from seatrial.devices.bench import bench, predicted_s
from seatrial.devices.store import Store

FEW = Plan(launches=2, rounds=3, splits=1, block_ms=2, warm_s=0.01)


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


def test_a_deadline_and_percentiles_are_told_of_every_arm(model, tmp_path, quiet):
    quiet(lambda artifact: 1.2 if "large" in artifact else 1.0)
    models = [model("small.onnx", 10), model("large.onnx", 12)]
    result = bench(
        models, plan=replace(FEW, launches=3, rounds=40), seed=1, deadline_ms=1.1, percentiles=(50, 99), miss=0.4
    )
    small, large = result.arms
    assert small.late is not None
    assert large.late is not None
    assert (small.late.verdict, small.late.late, small.late.samples) == ("ON TIME", 0, 360)
    assert (large.late.verdict, large.late.share.centre) == ("LATE", 1.0)
    assert small.late.share.confidence == pytest.approx(0.99)  # 1 % over both arms together
    median, p99 = small.percentiles
    assert median.ms == pytest.approx(1.0, rel=0.01)
    assert p99.ms is None
    assert json.loads(json.dumps(result.to_dict()))["arms"][1]["late"]["verdict"] == "LATE"


def test_the_share_of_this_cpus_limit_is_arithmetic(model, quiet, monkeypatch):
    quiet(lambda artifact: 2.0)
    monkeypatch.setattr(peak, "peak_macs_per_s", lambda threads: 1e9 * threads)
    result = bench([model()], plan=FEW, seed=1, macs=lambda arm: 1e6, threads=1)
    assert result.arms[0].limit == pytest.approx(0.5, rel=0.01)  # 1e6 in 2 ms, of 1e9 in a second
    assert result.peaks == {1: 1e9}
    assert bench([model()], plan=FEW, seed=1, macs=lambda arm: None).arms[0].limit is None


def test_the_peak_is_measured_in_a_process_of_its_own():
    measured = peak.peak_macs_per_s(1)
    assert 1e8 < measured < 1e13
    assert peak.measure(1, 64, 0.01)["macs_per_s"] > 1e7


def test_the_peak_is_that_of_the_best_kernels_that_this_cpu_can_run(monkeypatch):
    monkeypatch.setattr(peak, "_measured", lambda threads, kernel: 2e9 if kernel else 1e9)
    for flags, best in ((("avx2",), 1e9), (("avx2", "avx512f", "avx512vl"), 2e9)):
        monkeypatch.setattr(peak, "cpu_flags", lambda flags=flags: flags)
        assert peak.peak_macs_per_s(1) == best


def test_what_a_launch_will_take_grows_with_arms_and_rounds(model, tmp_path):
    arm = arm_from_path(model(), tmp_path / "in.npz", "a")
    once = predicted_s([arm], Plan(rounds=10, cold_ms=0))
    assert once == pytest.approx(1.0 + 0.2 + 10 * 0.04)
    assert predicted_s([arm, replace(arm, streams=2)], Plan(rounds=10, cold_ms=0)) == pytest.approx(
        once + 1.0 + 0.4 + 10 * 0.25
    )


def test_results_are_data_frames_where_pandas_is(model, quiet, monkeypatch):
    quiet(lambda artifact: 1.0)
    result = bench([model()], plan=FEW, seed=1, deadline_ms=5.0, percentiles=(50,))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        with pytest.raises(MissingPart, match="pip install pandas"):
            result.to_pandas()
    pytest.importorskip("pandas")
    arms, samples = result.to_pandas(), result.to_pandas(samples=True)
    assert list(arms["model"]) == ["a.onnx"]
    assert arms["late"][0] == 0.0
    assert arms["p50_ms"][0] == pytest.approx(samples["ms"].median())
    assert len(samples) == 2 * 3 * 3
