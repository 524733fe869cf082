"""`seatrial bench` as a user meets it: tables, files and exit codes."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from seatrial.cli.bench import command
from seatrial.devices.store import Store

_SPEC = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parents[1] / "devices/conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
tiny: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

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
