"""This machine as a device: whole jobs as data, results as data."""

from __future__ import annotations

import json

import numpy as np
import pytest
from seatrial.core import samples
from seatrial.core.errors import UsageError, from_dict
from seatrial.devices.arms import Plan, arm_from_path
from seatrial.devices.launches import Launch
from seatrial.devices.local import LocalDevice


def test_a_proof_runs_every_setting_in_a_process_of_its_own(model, tmp_path):
    feeds = [{"x": np.full((4, 64), i, np.float32)} for i in range(3)]
    samples.save(tmp_path / "in.npz", feeds)
    settings = [
        {"threads": 1, "graph_optimization": "all"},
        {"threads": 1, "graph_optimization": "nonsense"},
        {"threads": 1, "graph_optimization": "disabled"},
    ]
    job = {
        "kind": "proof",
        "target": "onnxruntime",
        "artifact": str(model()),
        "runs": [{"settings": s} for s in settings],
        "inputs": str(tmp_path / "in.npz"),
        "out": str(tmp_path / "out"),
    }
    good, bad, strict = json.loads(json.dumps(LocalDevice().run(job)))["runs"]
    outputs = [samples.load(run["outputs"]) for run in (good, strict)]
    assert [len(o) for o in outputs] == [3, 3]
    assert np.allclose(outputs[0][2]["y"], outputs[1][2]["y"], atol=1e-5)
    assert not outputs[0][0]["y"].any()
    assert good["placement"]["precision"] == "fp32"
    assert good["error"] is None
    assert bad["outputs"] is None
    assert isinstance(from_dict(bad["error"]), UsageError)


def test_a_comparison_is_a_job_too(model, tmp_path):
    arm = arm_from_path(model(), tmp_path / "in.npz", "a")
    plan = Plan(launches=2, rounds=2, splits=1, block_ms=1, warm_s=0.01)
    arms = [arm.to_dict(), arm.named("b").to_dict()]
    job = {"kind": "comparison", "arms": arms, "plan": plan.to_dict(), "seed": 3}
    said: list[str] = []
    answer = json.loads(json.dumps(LocalDevice().run(job, said.append)))
    launches = [Launch.from_dict(launch) for launch in answer["launches"]]
    assert [launch.seed for launch in launches] == ["3/0", "3/1"]
    assert all(launch.effect("a", "b", "median") is not None for launch in launches)
    assert said == ["launch 1 of 2", "launch 2 of 2"]


def test_an_unknown_job_is_refused():
    with pytest.raises(UsageError, match="comparison"):
        LocalDevice().run({"kind": "sing"})
