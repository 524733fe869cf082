"""Profiles of a device: data with a clear error, and workers that keep to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from seatrial.core import samples
from seatrial.core.errors import CannotDo, UsageError
from seatrial.devices.arms import Arm, Plan, arms_from_paths
from seatrial.devices.bench import bench
from seatrial.devices.device_profile import DeviceProfile, device_profile, names
from seatrial.devices.facts import cores_given
from seatrial.devices.grid import Grid
from seatrial.devices.launches import OpenArm


def test_the_shipped_profiles_are_read():
    assert {"all-cores", "one-core", "small"} <= set(names())
    for name in names():
        assert device_profile(name).description
    assert device_profile("one-core").limits == {"cores": cores_given()[:1]}
    assert device_profile("small").limits["memory_bytes"] == 512 << 20
    assert device_profile("all-cores").limits == {}
    assert device_profile("all-cores").settings_of("onnxruntime") == {"threads": len(cores_given())}


def test_a_profile_of_the_user_s_own(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('description = "mine"\nthreads = 1\n[settings.onnxruntime]\ngraph_optimization = "basic"\n')
    found = device_profile(str(file))
    assert found.settings_of("onnxruntime") == {"graph_optimization": "basic", "threads": 1}
    assert found.settings_of("tflite") == {"threads": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('description = "x"\ncore = 1', "did you mean 'cores'"),
        ('description = "x"\ncores = 0', "wanted a whole number from 1 up"),
        ('description = "x"\nthreads = "some"', "wanted a whole number from 1 up"),
        ("cores = 1", "missing key 'description'"),
        ("cores", "not valid TOML"),
        ('description = "x"\nsettings = 3', "settings\n  found: 3 is no table"),
        ('description = "x"\n[settings]\ngraph_optimization = "basic"', "unknown key 'graph_optimization'"),
        ('description = "x"\n[settings.onnxruntme]\nx = 1', "did you mean 'onnxruntime'"),
        ('description = "x"\n[settings]\nonnxruntime = 3', "settings: onnxruntime\n  found: 3 is no table"),
    ],
)
def test_what_a_profile_cannot_be_is_one_clear_error(tmp_path: Path, text: str, words: str):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        device_profile(str(tmp_path / "bad.toml"))
    assert words in str(error.value)


def test_no_such_profile_and_more_cores_than_there_are(tmp_path: Path):
    with pytest.raises(UsageError, match="no such profile"):
        device_profile("raspberry")
    with pytest.raises(UsageError, match="No such file"):
        device_profile(str(tmp_path / "absent.toml"))
    with pytest.raises(CannotDo, match=f"has {len(cores_given())}"):
        _ = DeviceProfile("x", cores=10_000).core_set


def test_a_worker_keeps_to_its_cores_and_data(model, tmp_path: Path):
    """What needs a gigabyte can't have it; what is small runs on the one core, and isn't the same arm as elsewhere."""
    grid = Grid(profile=DeviceProfile("x", threads=1, cores=1, memory_mb=512))
    plan = Plan(block_ms=2, warm_s=0.01)
    nodes = [
        helper.make_node("Mul", ["x", "many"], ["n"]),
        helper.make_node("Cast", ["n"], ["count"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["count"], ["ones"], value=helper.make_tensor("v", 1, [1], [1.0])),
        helper.make_node("ReduceSum", ["ones"], ["y"], keepdims=1),
    ]
    many = helper.make_tensor("many", TensorProto.FLOAT, [1], [3e8])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], [many])
    large = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(large, tmp_path / "large.onnx")
    (small,), _ = arms_from_paths([model()], tmp_path, grid)
    (free,), _ = arms_from_paths([model()], tmp_path)
    assert small.same != free.same
    opened = OpenArm(small, plan, tmp_path / "small.log", {})
    assert opened.run.ok
    assert opened.worker is not None
    assert psutil.Process(opened.worker.pid).cpu_affinity() == cores_given()[:1]
    opened.close()
    samples.save(tmp_path / "ones.npz", [{"x": np.ones(1, np.float32)}])
    arm = Arm("large", "onnxruntime", str(tmp_path / "large.onnx"), "id", {"threads": 1}, str(tmp_path / "ones.npz"))
    assert OpenArm(replace(arm, limits=grid.limits), plan, tmp_path / "large.log", {}).run.status == "oom"
    alone = OpenArm(arm, plan, tmp_path / "alone.log", {})
    assert alone.run.ok
    alone.close()


def test_bench_takes_a_profile(model):
    result = bench([model()], device="one-core", plan=Plan(launches=1, rounds=1, block_ms=2, warm_s=0.01))
    assert result.arms[0].ok
    assert result.arms[0].arm.limits == {"cores": cores_given()[:1]}
    with pytest.raises(UsageError, match="no such profile"):
        bench([model()], device="raspberry")
