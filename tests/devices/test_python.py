"""Models in other interpreters: any that has numpy, psutil and the runtime."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import seatrial
import tiny
from seatrial.core.errors import MissingPart, UsageError
from seatrial.devices.arms import Plan
from seatrial.devices.compare import compare
from seatrial.devices.probe import interpreter

FEW = Plan(launches=1, rounds=2, splits=1, block_ms=2, warm_s=0.01)


@pytest.fixture(scope="module", autouse=True)
def _installed(needs) -> None:
    needs("onnxruntime", "onnx")


def venv(folder: Path, *modules: str) -> Path:
    """A virtual environment in which these modules and what they need are our own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    place = next(folder.glob("lib/python*/site-packages"))
    ours = {str(Path(importlib.util.find_spec(name).origin).parent.parent) for name in modules}
    (place / "ours.pth").write_text("\n".join(sorted(ours)))
    return folder / "bin" / "python"


def test_one_model_in_two_interpreters(tmp_path):
    model = tiny.write_chain(tmp_path / "a.onnx", 2)
    other = venv(tmp_path / "v", "numpy", "psutil", "onnxruntime")
    found = seatrial.bench([model], python=[other, sys.executable], plan=FEW, seed=1)
    assert [arm.status for arm in found.arms] == ["ok", "ok"]
    assert {arm.arm.name for arm in found.arms} == {f"a.onnx, python={path}" for path in (other, sys.executable)}
    assert len({arm.arm.same for arm in found.arms}) == 2


def test_a_comparison_of_two_interpreters_is_one_of_a_model_with_itself(tmp_path, monkeypatch):
    tiny.quiet_machine(monkeypatch, lambda artifact: 2.0)
    model = tiny.write_chain(tmp_path / "a.onnx", 2)
    other = venv(tmp_path / "v", "numpy", "psutil", "onnxruntime")
    found = compare(model, model, base_python=other, device="one-core", seed=1)
    assert str(found.decision.verdict) == "PASS"
    assert (found.base.arm.python, found.candidate.arm.python) == (str(other), "")
    assert len(found.base.arm.limits["cores"]) == len(found.candidate.arm.limits["cores"]) == 1


def test_interpreters_that_can_not_serve_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(MissingPart, match="No module named") as caught:
        interpreter(venv(tmp_path / "bare"))
    assert "pip install numpy psutil" in caught.value.todo
    with pytest.raises(UsageError, match="it doesn't run: No such file"):
        interpreter(tmp_path / "none")
    with pytest.raises(UsageError, match="no Python"):
        interpreter("/bin/false")
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 3 9\n")
    old.chmod(0o755)
    with pytest.raises(UsageError, match=r"Python 3\.9"):
        interpreter(old)


def test_a_runtime_that_is_missing_there_is_the_failure_of_its_arm(tmp_path):
    import numpy
    import psutil

    folder = tmp_path / "v"
    python, place = venv(folder), next(folder.glob("lib/python*/site-packages"))
    for module in (numpy, psutil):
        source = Path(module.__file__).parent
        (place / source.name).symlink_to(source)
        for libraries in source.parent.glob(f"{source.name}.libs"):
            (place / libraries.name).symlink_to(libraries)
    model = tiny.write_chain(tmp_path / "a.onnx", 2)
    with pytest.raises(seatrial.SeatrialError, match="onnxruntime"):
        seatrial.bench([model], python=python, plan=FEW)
