"""The fixture in a user's pytest: red with words, and never green or skipped in silence."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

TESTS = """
import math
import pytest
from seatrial.devices import family, gate, launches
from seatrial.devices.stats import Interval


@pytest.fixture
def quick(monkeypatch):
    def block(self):
        level = 60 if "slow" in self.arm.artifact else 10
        self.run.blocks.append([int(1e6 * level + len(self.run.blocks))] * 3)
        self.run.notes.append({})

    monkeypatch.setattr(launches.OpenArm, "block", block)
    monkeypatch.setattr(family, "QUICK_LOOKS", (gate.Look(2, 1.0),))


def decided(monkeypatch, verdict):
    log = Interval(0.02, -0.02, 0.06, 12, 0.98, 0.04)
    decision = gate.Decision(verdict, "for a test", effect=log, canary=log)
    monkeypatch.setattr("seatrial.devices.compare.decide", lambda *_: decision)


def test_red(seatrial_compare, quick):
    seatrial_compare("fast.onnx", "slow.onnx", quick=True, seed=1)


def test_green(seatrial_compare, monkeypatch):
    decided(monkeypatch, gate.Verdict.PASS)
    assert seatrial_compare("slow.onnx", "fast.onnx", detect=0.1).rule.detect == 0.1


def test_new(seatrial_compare):
    seatrial_compare("absent.onnx", "fast.onnx")


def test_lax(seatrial_compare, monkeypatch):
    decided(monkeypatch, gate.Verdict.INCONCLUSIVE)
    seatrial_compare("fast.onnx", "slow.onnx")


def test_strict(seatrial_compare, monkeypatch):
    decided(monkeypatch, gate.Verdict.INCONCLUSIVE)
    seatrial_compare("fast.onnx", "slow.onnx", strict=True)
"""


def test_a_users_tests_with_the_fixture(model, tmp_path: Path) -> None:
    model("fast.onnx", 10)
    model("slow.onnx", 60)
    (tmp_path / "test_latency.py").write_text(TESTS)
    plugin = ["-p", _entry_point(), "-p", "no:cacheprovider"]
    command = [sys.executable, "-P", "-m", "pytest", *plugin, "-rA", "--rootdir", str(tmp_path), "test_latency.py"]
    # Off, so that it is loaded once, whether this installation knows the entry point or is older.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 2 passed, 1 warning" in done.stdout, done.stdout
    assert "FAILED test_latency.py::test_red" in done.stdout
    assert "REGRESS: proven slower by more than 1.0%" in done.stdout
    assert "MatMul: 10 nodes in the base, 60 in the candidate" in done.stdout
    assert "NEW: there is no baseline" in done.stdout
    assert "NotGreen: INCONCLUSIVE: for a test" in done.stdout
    assert "FAILED test_latency.py::test_strict" in done.stdout


def _entry_point() -> str:
    """As pytest finds it in an installation."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    return str(project["entry-points"]["pytest11"]["seatrial"])


def test_loading_the_plugin_costs_nothing_but_pytest() -> None:
    code = f"import pytest, sys; before = set(sys.modules); import {_entry_point()}; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    new = {name for name in done.stdout.strip("{}\n").replace("'", "").split(", ") if "seatrial" not in name}
    assert not new & {"numpy", "scipy", "psutil", "click"}, new
