"""A worker that dies, hangs, chatters or lies is data, and leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from seatrial.core import samples
from seatrial.core.errors import NotWritten
from seatrial.devices.resident import ArmFailed, Resident

SETTINGS = {"threads": 1, "graph_optimization": "all"}


def opened(worker: Resident, path: Path) -> dict[str, object]:
    return worker.ask("open", 60, target="onnxruntime", artifact=str(path), settings=SETTINGS)


def feed_file(folder: Path) -> str:
    import numpy as np

    samples.save(folder / "in.npz", [{"x": np.ones((4, 64), np.float32)}])
    return str(folder / "in.npz")


def test_a_worker_opens_warms_and_times_blocks(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        answer = opened(worker, model())
        assert answer["load_ms"] > 0
        assert [spec["name"] for spec in answer["inputs"]] == ["x"]
        first = worker.ask("first", 60, inputs=feed_file(tmp_path), reference=None, bar_db=0)
        assert first["shapes"] == {"x": ["float32", [4, 64]]}
        warm = worker.ask("warm", 60, iterations=3, seconds=0.05)
        assert warm["iterations"] >= 3
        block = worker.ask("block", 60, k=7)
        assert len(block["samples_ns"]) == 7
        assert all(x > 0 for x in block["samples_ns"])
        assert worker.ask("stats", 60)["peak_rss_bytes"] > 10e6
        assert worker.ask("placement", 60)["precision"] == "fp32"
    assert not psutil.pid_exists(worker.pid)


def test_what_a_runtime_prints_to_stdout_is_no_answer(model, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import os\nos.write(1, b'garbage {}\\n' * 3)\nprint('more')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    with Resident(tmp_path / "log") as worker:
        assert opened(worker, model())["load_ms"] > 0
    assert "garbage {}" in (tmp_path / "log").read_text()


def test_a_killed_worker_is_a_signal(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        opened(worker, model())
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ArmFailed) as failed:
            worker.ask("stats", 60)
    assert failed.value.status == "signal"
    assert "SIGKILL" in failed.value.reason


def test_a_worker_killed_during_its_answer_is_noticed_at_once(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        opened(worker, model())
        worker.ask("first", 60, inputs=feed_file(tmp_path), reference=None, bar_db=0)
        killer = threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL))
        killer.start()
        start = time.monotonic()
        with pytest.raises(ArmFailed, match="SIGKILL"):
            worker.ask("warm", 60, iterations=1, seconds=50)
    assert time.monotonic() - start < 10


def test_a_worker_that_hangs_meets_its_deadline_and_is_ended(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        opened(worker, model())
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(ArmFailed) as failed:
            worker.ask("stats", 0.3)
    assert failed.value.status == "timeout"
    assert not psutil.pid_exists(worker.pid)


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> str:
    """A worker module of its own that does `body` with the two descriptors `r` and `w`."""
    (folder / "fake_worker.py").write_text(f"import os, sys, time\nr, w = map(int, sys.argv[1:])\n{body}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return "fake_worker"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("os.write(w, b'not json\\n'); time.sleep(60)", "protocol", "not json"),
        ("os.write(w, b'[1]\\n'); time.sleep(60)", "protocol", "[1]"),
        ("sys.exit(0)", "error", "exit code 0"),
        ("print('the last words'); sys.exit(3)", "error", "the last words"),
        ("os.abort()", "signal", "SIGABRT"),
    ],
)
def test_every_way_of_ending_has_a_name(body, status, reason, tmp_path, monkeypatch):
    module = fake(tmp_path, monkeypatch, body)
    with Resident(tmp_path / "log", module=module) as worker, pytest.raises(ArmFailed) as failed:
        worker.ask("open", 30)
    assert failed.value.status == status
    assert reason in failed.value.reason


def test_a_broken_file_is_an_error_and_the_worker_lives_on(model, tmp_path):
    broken = model("broken.onnx")
    broken.write_bytes(broken.read_bytes()[:50])
    with Resident(tmp_path / "log") as worker:
        with pytest.raises(ArmFailed) as failed:
            opened(worker, broken)
        assert failed.value.status == "error"
        assert opened(worker, model("whole.onnx"))["load_ms"] > 0


def test_a_memory_limit_is_oom(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        opened(worker, model("small.onnx"))
        status = Path(f"/proc/{worker.pid}/status").read_text()
    needed = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) << 10
    path = model("large.onnx", 1, 4096)  # 64 MiB of weights
    what = {"target": "onnxruntime", "artifact": str(path), "settings": SETTINGS}
    with Resident(tmp_path / "log") as worker, pytest.raises(ArmFailed) as failed:
        resource.prlimit(worker.pid, resource.RLIMIT_DATA, (needed + (16 << 20),) * 2)
        worker.ask("open", 60, **what)
    assert failed.value.status == "oom", failed.value.reason


def test_a_full_disk_says_nothing_of_the_arm(model, tmp_path):
    with Resident(tmp_path / "log") as worker:
        opened(worker, model())
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(NotWritten, match="File too large") as failed:
            worker.ask("run", 60, inputs=feed_file(tmp_path), out=str(tmp_path / "out.npz"))
    assert "free some room" in failed.value.todo


PARENT = """
import sys
from pathlib import Path
from seatrial.devices.resident import Resident
model, feed, log = sys.argv[1:]
worker = Resident(Path(log))
settings = {"threads": 1, "graph_optimization": "all"}
worker.ask("open", 60, target="onnxruntime", artifact=model, settings=settings)
worker.ask("first", 60, inputs=feed, reference=None, bar_db=0)
print(worker.pid, flush=True)
worker.ask("warm", 90, iterations=1, seconds=80)
"""


def test_a_parent_that_is_killed_leaves_no_orphan_even_in_the_middle_of_a_block(model, tmp_path):
    line = [sys.executable, "-P", "-c", PARENT, str(model()), feed_file(tmp_path), str(tmp_path / "log")]
    parent = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)
