"""A GPU's figures are the GPU's: nothing falls back in silence, its memory is told, a block ends when it is done.

What needs a GPU of NVIDIA and `onnxruntime-gpu` (in this Python, or its environment made) is skipped elsewhere.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core import environments, process
from seatrial.core.errors import MissingPart, UsageError
from seatrial.devices import facts, gpu
from seatrial.devices.arms import Arm
from seatrial.devices.bench import bench
from seatrial.devices.peak import _on_cpu
from seatrial.devices.sessions import open_session
from seatrial.targets import get
from seatrial.targets.base import version_of

GPUS = gpu.gpus()
HERE = bool(version_of("onnxruntime-gpu"))
# Asked while tests are collected: later the cache is a folder of the tests' own.
MADE = HERE or environments.ready("onnxruntime-gpu") is not None
CUDA = {"threads": 1, "graph_optimization": "all", "provider": "cuda"}
Write = Callable[..., Path]


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Path:
    """The interpreter that has onnxruntime-gpu; nothing is downloaded for these tests."""
    if not MADE:
        pytest.skip("onnxruntime-gpu isn't here: seatrial env create onnxruntime-gpu")
    return Path(sys.executable) if HERE else request.getfixturevalue("environment")("onnxruntime-gpu")


@pytest.fixture
def cuda(build: Path) -> Path:
    """The same, beside a GPU."""
    if not GPUS:
        pytest.skip("no GPU of NVIDIA is here")
    return build


def chain(path: Path, repeat: int, size: int) -> Path:
    """`x` (size, size) → `repeat` × (MatMul, Tanh) → `y`: a GPU is busy for long, and TF32 would show."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = (np.random.default_rng(0).standard_normal((size, size)) / np.sqrt(size)).astype(np.float32)
    names = ["x", *(f"t{i}" for i in range(repeat - 1)), "y"]
    nodes = []
    for i in range(repeat):
        nodes += [
            helper.make_node("MatMul", [names[i], "w"], [f"m{i}"]),
            helper.make_node("Tanh", [f"m{i}"], names[i + 1 : i + 2]),
        ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def feed(size: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)}


def db(have: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> float:
    noise = np.mean((have["y"].astype(np.float64) - want["y"]) ** 2)
    return float(10 * np.log10(np.mean(np.square(want["y"], dtype=np.float64)) / noise)) if noise else 300.0


# Without a GPU.


def test_memory_of_the_gpu_needs_a_gpu(onnx_file: Path) -> None:
    with pytest.raises(UsageError, match="only a GPU has memory of its own"):
        get("onnxruntime").open(onnx_file, {"threads": 1, "io": "device"})
    with pytest.raises(UsageError, match="known: host, device"):
        get("onnxruntime").open(onnx_file, CUDA | {"io": "gpu"})


@pytest.mark.skipif(MADE, reason="here it can be opened, or is refused for another reason")
def test_a_build_without_cuda_is_refused_with_the_command(onnx_file: Path, needs: Callable[..., None]) -> None:
    needs("onnxruntime")
    with pytest.raises(MissingPart) as refused:
        open_session("onnxruntime", onnx_file, CUDA)
    assert "this build has: cpu" in refused.value.found
    assert refused.value.todo == "seatrial env create onnxruntime-gpu"


@pytest.mark.skipif(HERE and bool(GPUS), reason="here it may load")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino"])
def test_a_bundles_own_script_refuses_the_cpu_instead(
    onnx_file: Path, needs: Callable[..., None], provider: str
) -> None:
    needs("onnxruntime")
    space: dict[str, Any] = {}
    exec(get("onnxruntime").example(CUDA | {"provider": provider}), space)
    with pytest.raises(RuntimeError, match="ExecutionProvider did not load"):
        space["open_model"](onnx_file)


def test_a_provider_that_fails_later_is_no_reason_to_take_the_cpu(onnx_file: Path, needs: Callable[..., None]) -> None:
    needs("onnxruntime")
    session: Any = get("onnxruntime").open(onnx_file, {"threads": 1})
    assert not session._session._enable_fallback  # ONNX Runtime's own, which would go on with the CPU


def test_a_bundle_for_the_cpu_says_nothing_of_gpus() -> None:
    text = get("onnxruntime").example({"threads": 2})
    assert "preload" not in text and "did not load" not in text


def test_a_figure_of_another_gpu_or_driver_is_another_devices() -> None:
    card = {"name": "A", "memory_gib": 80, "driver": "580.1"}
    here = facts.host_facts() | {"gpus": [card, {**card, "name": "B"}]}
    runtime = {"name": "onnxruntime", "version": "1"}
    newer = copy.deepcopy(here)
    newer["gpus"][0]["driver"] = "580.2"
    on_a = facts.fingerprint(here, runtime, {"A": 1})
    assert on_a != facts.fingerprint(newer, runtime, {"A": 1})
    assert on_a != facts.fingerprint(here, runtime, {"B": 1})
    assert facts.fingerprint(here, runtime, {"B": 1}) == facts.fingerprint(newer, runtime, {"B": 1})
    # Figures of the CPU stay what they were before there was a GPU, or another driver.
    assert facts.fingerprint(here, runtime) == facts.fingerprint(facts.host_facts(), runtime)


class Card:
    """What the driver would say of a GPU, for `gpu.Meter`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used, self.ours, self.cuda = 500, 0, False
        monkeypatch.setattr(gpu, "_devices", lambda: [0])
        monkeypatch.setattr(gpu, "_name", lambda device: "A")
        monkeypatch.setattr(gpu, "_memory", lambda device: self)
        monkeypatch.setattr(gpu, "_of_process", lambda device: self.ours)
        monkeypatch.setattr(gpu, "_uses_cuda", lambda: self.cuda)


def test_memory_that_others_take_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    meter = gpu.Meter()
    card.used = 900
    assert meter.read() == {}
    card.cuda, card.ours = True, 120
    assert meter.read() == {"A": 120}
    card.ours = 90
    assert meter.read() == {"A": 120}  # the most


def test_memory_of_an_unknown_process_is_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some containers the driver knows us by another id."""
    card = Card(monkeypatch)
    meter = gpu.Meter()
    card.cuda, card.used = True, 900
    assert meter.read() == {"A": 400}


@pytest.mark.parametrize("settings", [{"provider": "cuda"}, {"device": "GPU"}, {"device": "AUTO"}])
def test_the_peak_of_the_cpu_is_no_limit_of_another_device(settings: dict[str, str]) -> None:
    assert not _on_cpu(Arm("a", "t", "", "", {"threads": 1, **settings}, ""))
    assert _on_cpu(Arm("a", "t", "", "", {"threads": 1, "device": "CPU"}, ""))


def test_another_interpreter_finds_the_cuda_libraries_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia" / "cu13" / "lib").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/users/own")
    found = process.module_env(Path(sys.executable))["LD_LIBRARY_PATH"].split(os.pathsep)
    assert found[0] == "/users/own"
    assert str(tmp_path / "nvidia" / "cu13" / "lib") in found
    assert "LD_LIBRARY_PATH" not in process.module_env(None)


def test_a_gpu_that_is_not_there_is_one_clear_error(
    build: Path, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without CUDA a library is missing; where all is there, the GPU is hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(MissingPart) as refused:
        open_session("onnxruntime", onnx_file, CUDA)
    assert "cannot open shared object file" in refused.value.found or "CUDA failure 100" in refused.value.found
    assert refused.value.todo
    with pytest.raises(MissingPart) as unmeasured:
        bench([onnx_file], settings={"provider": "cuda"}, quick=True)
    # Asked where the provider lives, though by itself a raw file is opened here.
    assert unmeasured.value.found == refused.value.found


def test_tensorrt_without_its_library_is_one_clear_error(build: Path, onnx_file: Path) -> None:
    with pytest.raises(MissingPart) as refused:
        open_session("onnxruntime", onnx_file, CUDA | {"provider": "tensorrt"})
    assert "cannot open shared object file" in refused.value.found
    assert "TensorRT 10" in refused.value.todo


# With one.


def test_fp32_on_the_gpu_is_fp32(cuda: Path, tmp_path: Path) -> None:
    """TF32 has 10 bits of fraction: some 60 dB."""
    model = chain(tmp_path / "chain.onnx", 3, 512)
    on_cpu = open_session("onnxruntime", model, {"threads": 1}).run(feed(512))
    on_gpu = open_session("onnxruntime", model, CUDA).run(feed(512))
    assert db(on_gpu, on_cpu) > 110


def test_memory_of_the_gpu_is_told_of_what_runs_there(cuda: Path, tmp_path: Path) -> None:
    model = chain(tmp_path / "chain.onnx", 4, 512)
    result = bench([model], settings={"provider": ["cuda", "cpu"]}, launches=2, rounds=2)
    held = {arm.arm.settings["provider"]: arm for arm in result.arms}
    (name,) = held["cuda"].gpu_bytes
    assert name in {one["name"] for one in result.facts["gpus"]}
    assert 50e6 < held["cuda"].gpu_bytes[name] < 4e9  # a context and cuBLAS take hundreds of MB
    assert held["cpu"].gpu_bytes == {}
    assert held["cuda"].limit is None
    placement = held["cuda"].placement
    assert placement and set(placement["where"]) == {"CUDAExecutionProvider"}
    assert json.loads(json.dumps(result.to_dict()))["arms"][0]["gpu_bytes"]


def test_bench_shows_the_memory_of_the_gpu(cuda: Path, tmp_path: Path, main: Callable[..., Any]) -> None:
    model = chain(tmp_path / "chain.onnx", 4, 512)
    done = main("bench", model, "--set", "provider=cuda", "--launches", 2, "--rounds", 2)
    assert done.code == 0, done.err
    assert "GPU MB" in done.out and GPUS[0]["name"] in done.out


DONE = """
import ctypes, sys, time
from pathlib import Path
import numpy as np
from seatrial.targets import get

session = get("onnxruntime").open(Path(sys.argv[1]), {"threads": 1, "provider": "cuda", "io": sys.argv[2]})
session.bind({"x": np.random.default_rng(1).standard_normal((2048, 2048)).astype(np.float32)})
wait = ctypes.CDLL("libcudart.so.13").cudaDeviceSynchronize
steps, waits = [], []
for _ in range(9):
    start = time.perf_counter(); session.step()
    middle = time.perf_counter(); assert wait() == 0
    steps.append(middle - start); waits.append(time.perf_counter() - middle)
print(np.median(steps), np.median(waits))
"""


def done(python: Path, model: Path, io: str) -> tuple[float, float]:
    """Seconds of a step, and of waiting for the GPU afterwards."""
    env = {**os.environ, **process.module_env(python)}
    ran = subprocess.run([python, "-P", "-c", DONE, model, io], capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr
    step, wait = map(float, ran.stdout.split())
    return step, wait


@pytest.mark.parametrize("io", ["host", "device"])
def test_a_step_ends_when_the_gpu_is_done(cuda: Path, tmp_path: Path, io: str) -> None:
    step, wait = done(cuda, chain(tmp_path / "chain.onnx", 40, 2048), io)
    assert step > 5e-3  # 40 × 17 GFLOP
    assert wait < step / 50


def test_io_on_the_device_leaves_the_way_to_it_out(cuda: Path, tmp_path: Path) -> None:
    """One product of (2048, 2048) takes less than 16 MB there and 16 MB back."""
    model = chain(tmp_path / "one.onnx", 1, 2048)
    assert done(cuda, model, "device")[0] < 0.7 * done(cuda, model, "host")[0]


def test_an_export_for_the_gpu_is_proven_on_it_and_proves_itself(
    cuda: Path, onnx_file: Path, main: Callable[..., Any]
) -> None:
    out = onnx_file.parent / "out"
    made = main("export", onnx_file, "--provider", "cuda", "--require-placement", "100%", "-o", out)
    assert made.code == 0, made.err
    assert json.loads((out / "manifest.json").read_text())["settings"]["provider"] == "cuda"
    assert main("verify", out).code == 0
    env = {**os.environ, **process.module_env(cuda)}
    alone = subprocess.run([cuda, out / "selftest.py"], capture_output=True, text=True, env=env)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    hidden = subprocess.run(
        [cuda, out / "selftest.py"], capture_output=True, text=True, env=env | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert hidden.returncode == 1 and "did not load" in hidden.stderr
