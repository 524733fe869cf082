"""Which operators took the time: what `bench --profile` shows; a red `compare` stands in `test_compare.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from seatrial.cli import bench
from seatrial.cli.profile_text import WIDTH, profiles, short, slower
from seatrial.devices.arms import Arm
from seatrial.devices.results import ArmSummary
from seatrial.targets.profile import without_times


@pytest.fixture(autouse=True)
def _own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "lease"))


def test_bench_shows_the_slowest_operators_of_each_model_and_keeps_all(tmp_path):
    model, broken = tiny.write_chain(tmp_path / "a.onnx", 20), tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    words = ["--launches", "2", "--rounds", "1", "--profile", "--json"]
    result = CliRunner().invoke(bench.command, [str(model), str(broken), *words])
    assert result.exit_code == 0, result.output
    assert "a.onnx: the 10 slowest of 40 operators" in result.stderr
    assert "by ONNX Runtime's profiler over " in result.stderr
    rows = [line.split() for line in result.stderr.splitlines() if line.startswith(("MatMul", "Tanh"))]
    assert len(rows) == 10
    assert {row[-2] for row in rows} == {"CPUExecutionProvider"}
    good, bad = json.loads(result.stdout)["arms"]
    assert len(good["profile"]["nodes"]) == 40
    assert bad["profile"] is None


def test_a_runtime_without_times_says_so_with_what_is_known(capsys):
    placement = {"where": {"XNNPACK": 9, "builtin": 1}, "ops": {"CONV_2D": 8, "SOFTMAX": 2}}
    why = without_times("tflite-runtime gives no times of operators")
    arm = ArmSummary(Arm("m", "tflite-runtime", "", "", {}, ""), "ok", None, placement=placement, profile=why)

    class Result:
        arms = (arm,)
        base = candidate = arm

    profiles(Result(), to_stderr=False)  # type: ignore[arg-type]
    assert capsys.readouterr().out == (
        "\nm: no times of operators, tflite-runtime gives no times of operators; "
        "it ran 9 operators on XNNPACK and 1 operators on builtin: 8 CONV_2D, 2 SOFTMAX\n"
    )
    assert slower(Result()) == ["no times of operators: tflite-runtime gives no times of operators"]  # type: ignore[arg-type]


def test_long_names_keep_their_end():
    assert short("layer") == "layer"
    assert short("x" * 100 + "/conv") == "…" + "x" * (WIDTH - 6) + "/conv"
