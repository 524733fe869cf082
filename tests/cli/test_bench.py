"""`seatrial bench` as a user meets it: tables, files and exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import tiny
from click.testing import CliRunner, Result
from seatrial.cli.bench import command, exit_code
from seatrial.core.errors import UsageError
from seatrial.devices.store import Store

FEW = ("--launches", "2", "--rounds", "2", "--seed", "1")


@pytest.fixture(autouse=True)
def _own_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "lease"))


def bench(*words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_the_table_is_ordered_by_speed_and_a_failure_does_not_stop_the_others(tmp_path):
    slow, fast = tiny.write_bundle(tmp_path / "slow", 60), tiny.write_chain(tmp_path / "fast.onnx", 2)
    broken = tiny.write_chain(tmp_path / "broken.onnx", 2)
    broken.write_bytes(broken.read_bytes()[:60])
    store = tmp_path / "facts.db"
    result = bench(slow, fast, broken, *FEW, "--json", "--store", store)
    assert result.exit_code in (0, 4), result.output  # 4: two launches may doubt their canary
    lines = result.stderr[result.stderr.index("median ms") :].splitlines()
    assert lines[1].startswith("fast.onnx")
    assert lines[2].startswith("slow")
    assert "fp32" in lines[1]
    assert "onnxruntime" in lines[1]
    assert "FAILED broken.onnx" in result.stderr
    assert "launch 2 of 2" in result.stderr
    data = json.loads(result.stdout)
    assert [arm["status"] for arm in data["arms"]] == ["ok", "ok", "unusable"]
    assert len(data["launches"]) == 2
    assert len(Store(store).find(session=data["session"])) == 2 * 3


def test_threads_replace_the_bundles_own(tmp_path):
    result = bench(tiny.write_bundle(tmp_path / "b"), "--threads", 2, *FEW, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["arms"][0]["arm"]["settings"]["threads"] == 2
    assert data["pairs"] == []
    assert "median ms" in result.stderr


def test_when_no_model_runs_nothing_was_measured(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "b", output_error=0.5)
    result = bench(bundle, *FEW)
    assert result.exit_code == 4
    assert "FAILED b (mismatch)" in result.stdout
    assert "NOTHING MEASURED" in result.stdout


def test_a_bundle_with_a_changed_byte_is_not_measured(tmp_path):
    from seatrial.core.errors import CheckFailed

    bundle = tiny.write_bundle(tmp_path / "b")
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[-1] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    assert isinstance(bench(bundle, *FEW).exception, CheckFailed)


def test_no_model_at_all_is_a_usage_error():
    assert bench().exit_code == 2
    assert bench("x", "--launches", 0).exit_code == 2


def test_an_interrupt_ends_all_workers(tmp_path):
    model = tiny.write_chain(tmp_path / "a.onnx", 2)
    words = ["bench", str(model), str(model), "--launches", "90"]
    line = [sys.executable, "-P", "-m", "seatrial", *words]
    running = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stderr is not None
    while "launch 2" not in running.stderr.readline():
        pass
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 130
    psutil.wait_procs(children, timeout=5)
    assert not [child for child in children if child.is_running()]


def test_a_deadline_that_is_missed_exits_1_and_one_that_is_kept_0(tmp_path, monkeypatch):
    tiny.quiet_machine(monkeypatch, lambda artifact: 30.0)
    model, many = tiny.write_chain(tmp_path / "a.onnx", 2), ("--launches", 3, "--rounds", 40, "--seed", 1)
    late = bench(model, *many, "--deadline", "20ms")
    assert late.exit_code == 1, late.output
    assert "LATE a.onnx: 1440 of 1440 inferences took longer than 20 ms" in late.stdout
    kept = bench(model, *many, "--deadline", "0.04s", "--miss", "20%", "--percentiles", "50,99.9")
    assert kept.exit_code == 0, kept.output
    assert "ON TIME a.onnx: 0 of 1440" in kept.stdout
    assert "p99.9 needs 6636 samples and a.onnx has 1440: give --launches 14" in kept.stdout


def test_a_deadline_of_which_nothing_is_proven_says_so_and_exits_3_when_strict(tmp_path, monkeypatch):
    from seatrial.devices.bench import bench as measured

    tiny.quiet_machine(monkeypatch, lambda artifact: 30.0)
    model = tiny.write_chain(tmp_path / "a.onnx", 2)
    found = bench(model, *FEW, "--deadline", "33ms", "--strict")
    assert (found.exit_code, "NOT PROVEN either way" in found.stdout) == (3, True)
    result = measured([model], launches=2, rounds=1, deadline_ms=33.0)
    assert exit_code(result, strict=False) == 0
    failed = replace(result.arms[0], status="oom")
    assert exit_code(replace(result, arms=[*result.arms, failed]), strict=False) == 4


def test_a_grid_prints_a_row_for_each_combination_and_the_limit(tmp_path):
    model = tiny.write_chain(tmp_path / "a.onnx", 60)
    result = bench(model, *FEW, "--threads", "1,2", "--set", "graph_optimization=basic", "--json")
    assert result.exit_code in (0, 4), result.output
    data = json.loads(result.stdout)
    assert sorted(arm["arm"]["name"] for arm in data["arms"]) == [f"a.onnx, threads={n}" for n in (1, 2)]
    assert set(data["peaks_macs_per_s"]) == {"1", "2"}
    macs = 60 * 4 * 64 * 64
    for arm in data["arms"]:
        assert arm["arm"]["settings"]["graph_optimization"] == "basic"
        peak = data["peaks_macs_per_s"][str(arm["arm"]["settings"]["threads"])]
        assert arm["limit"] == pytest.approx(macs / (arm["latency"]["centre"] / 1e3) / peak)
    assert "of the" in result.stderr
    assert "G/s that numpy's float32 matrix product reached here on 2 threads" in result.stderr


def test_the_picture_holds_every_model_and_needs_nothing_beside_it(tmp_path, monkeypatch):
    tiny.quiet_machine(monkeypatch, lambda artifact: 9.0 if "slow" in artifact else 1.0)
    models = [tiny.write_chain(tmp_path / f"{name}&.onnx", 2) for name in ("slow", "fast")]
    result = bench(*models, tmp_path / "absent", *FEW, "--deadline", "5ms", "--picture", tmp_path / "p.svg")
    assert "Picture:" in result.stderr, result.output
    drawn = xml.fromstring((tmp_path / "p.svg").read_text())
    words = " ".join(drawn.itertext())
    for word in (
        "slow&.onnx",
        "fast&.onnx",
        "absent: unusable",
        "deadline 5 ms",
        "logarithmic",
        "100.00% later than 5 ms",
    ):
        assert word in words
    assert len(drawn.findall(".//*[@class='shape']")) == 2
    assert len(drawn.findall(".//*[@class='launch']")) == 2 * 2
    assert "http" not in (tmp_path / "p.svg").read_text().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--picture", "p.png"), "ends in .svg"),
        (("--picture", "absent/p.svg"), "folder"),
        (("--deadline", "soon"), "33ms"),
        (("--deadline", "0ms"), "above 0"),
        (("--percentiles", "50,x"), "50,99"),
        (("--batch", "0"), "from 1 up"),
        (("--set", "colour"), "NAME=VALUE"),
        (("--set", "colour=red"), "graph_optimization"),
        (("--shape", "y=1,2"), "x: float32"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_timed(tmp_path, words, found):
    result = bench(tiny.write_chain(tmp_path / "a.onnx", 2), *words)
    assert result.exit_code == 2 or isinstance(result.exception, UsageError)
    assert found in result.output + str(result.exception)
    assert "launch 1" not in result.output
