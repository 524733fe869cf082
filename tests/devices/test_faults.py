"""What goes wrong around a session: another one at the same time, a clock that steps, a model that takes long."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from seatrial.core.process import child_env
from seatrial.devices import launches
from seatrial.devices.arms import Plan, arm_from_path
from seatrial.devices.sitting import Sitting

FEW = Plan(launches=1, rounds=3, splits=1, block_ms=30, warm_s=0.01)

SESSION = """
import json, sys, time
from seatrial.devices.arms import Plan, arm_from_path
from seatrial.devices.launches import OpenArm
from seatrial.devices.sitting import Sitting
from pathlib import Path
spans = []
whole = OpenArm.block
def block(self):
    start = time.monotonic()
    whole(self)
    spans.append((start, time.monotonic()))
OpenArm.block = block
arm = arm_from_path(sys.argv[1], Path(sys.argv[2]), "a")
print("ready", flush=True)
sys.stdin.readline()
with Sitting(Plan(launches=1, rounds=3, splits=1, block_ms=30, warm_s=0.01), progress=lambda text: None) as sitting:
    sitting.launch([arm, arm.named("b")])
print(json.dumps(spans), flush=True)
"""


def test_two_sessions_that_start_at_once_measure_one_after_the_other(model, tmp_path):
    path = model()
    command = [sys.executable, "-P", "-c", SESSION, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": child_env({})}
    both = [subprocess.Popen([*command, str(tmp_path / f"{i}.npz")], **pipes) for i in range(2)]
    for each in both:
        assert each.stdout.readline() == "ready\n"
    for each in both:
        each.stdin.write("go\n")
        each.stdin.flush()
    one, other = sorted(json.loads(each.communicate(timeout=120)[0]) for each in both)
    assert [each.returncode for each in both] == [0, 0]
    assert len(one) == len(other) == 6
    assert one[-1][1] < other[0][0]  # not one block of the second before the last of the first


def test_a_clock_that_steps_changes_no_figure(model, tmp_path, monkeypatch):
    now = iter(range(10_000, 0, -100))

    class Stepping:
        """The wall clock runs backwards, 100 s at each look."""

        def __getattr__(self, name):
            return getattr(time, name)

        def time(self):
            return float(next(now))

    monkeypatch.setattr(launches, "time", Stepping())
    arm = arm_from_path(model(), tmp_path / "in.npz", "a")
    start = time.monotonic()
    with Sitting(replace(FEW, launches=2)) as sitting:
        found = [sitting.launch([arm, arm.named("b")]) for _ in range(2)]
    took = time.monotonic() - start
    assert found[1].started < found[0].started  # as it was told
    assert 0 < sum(launch.seconds for launch in found) <= took
    assert all(0 < run.cost_s <= took for launch in found for run in launch.arms.values())
    assert all(x > 0 for launch in found for run in launch.arms.values() for block in run.blocks for x in block)
    assert found[0].effect("a", "b", "median") == pytest.approx(0, abs=np.log(3))


def test_an_inference_that_takes_long_is_timed_one_at_a_time(model, tmp_path):
    """Slower than a block: each block is one inference, and the time limit grows with it."""
    arm = arm_from_path(model("large.onnx", repeat=400, size=256), tmp_path / "in.npz", "a")
    with Sitting(replace(FEW, block_ms=1.0, block_timeout_s=0.01)) as sitting:
        launch = sitting.launch([arm])
    run = launch.arms["a"]
    assert run.ok
    assert run.k == 1
    assert [len(block) for block in run.blocks] == [1, 1, 1]
    assert run.opened["warm_iterations"] >= 3
