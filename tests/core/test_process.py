"""Isolated processes: whatever happens in a child is data here, and nothing of it is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from seatrial.core import process
from seatrial.core.errors import ChildFailed, NotWritten, UsageError
from seatrial.core.process import GIB, Child, Limits

JOBS = '''
import ctypes, json, os, signal, subprocess, sys, time
from pathlib import Path

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def echo(**args):
    return {"args": args}


def noise():
    print('{"result": {"wrong": 1}}', flush=True)
    os.write(1, b"\\xff\\xfe not text\\n")
    os.write(2, b'{"error": {}}\\n')
    subprocess.run(["echo", "a grandchild's words"])
    return {"right": True}


def usage():
    from seatrial.core.errors import UsageError
    raise UsageError("asked", "found", "todo")


def own_error():
    raise RuntimeError("what went wrong")


def no_memory():
    raise MemoryError("cannot allocate")


def segfault():
    ctypes.string_at(0)


def abort():
    os.abort()


def leave(code):
    sys.exit(code)


def vanish():
    os._exit(3)


def not_json():
    return {"x": object()}


def full_disk():
    import errno
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there/file")


def grow(path):
    held = []
    while True:
        held.append(bytearray(b"x" * (16 << 20)))
        time.sleep(0.005)


def hang(path, kind="child"):
    """Sleeps with a grandchild beside it, deaf to SIGTERM; tells both ids."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    other = subprocess.Popen(SLEEP)
    Path(path).write_text(json.dumps([os.getpid(), other.pid]))
    if kind == "leaves":
        return {}
    time.sleep(600)
'''


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "jobs.py").write_text(JOBS)
    return {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def call(tmp_path: Path, env: dict[str, str]) -> Callable[..., dict[str, Any]]:
    def run(name: str, limits: Limits = Limits(60), **args: Any) -> dict[str, Any]:
        return process.call(f"jobs:{name}", args, workdir=tmp_path / "work", limits=limits, label="the job", env=env)

    return run


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_arguments_and_answer_go_through(call):
    args = {"text": "é\n", "numbers": [1, 2.5, None], "deep": {"a": True}}
    assert call("echo", **args) == {"args": args}


def test_what_a_child_prints_does_not_corrupt_its_answer(call, tmp_path: Path):
    assert call("noise") == {"right": True}
    log = (tmp_path / "work/log.txt").read_bytes()
    assert b"a grandchild's words" in log
    assert b"\xff\xfe not text" in log


def test_a_childs_own_error_arrives_as_itself_with_the_log(call, tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        call("usage")
    assert (caught.value.asked, caught.value.found, caught.value.todo) == ("asked", "found", "todo")
    assert caught.value.log == str(tmp_path / "work/log.txt")


@pytest.mark.parametrize(
    ("name", "args", "kind", "word"),
    [
        ("own_error", {}, "error", "RuntimeError: what went wrong"),
        ("no_memory", {}, "oom", "cannot allocate"),
        ("segfault", {}, "signal", "SIGSEGV"),
        ("abort", {}, "signal", "SIGABRT"),
        ("vanish", {}, "error", "exit code 3"),
        ("leave", {"code": 0}, "error", "SystemExit: 0"),
        ("leave", {"code": "bye"}, "error", "SystemExit: bye"),
        ("not_json", {}, "error", "not JSON serializable"),
    ],
)
def test_every_bad_end_is_named(call, tmp_path: Path, name: str, args: dict[str, Any], kind: str, word: str):
    with pytest.raises(ChildFailed) as caught:
        call(name, **args)
    assert caught.value.kind == kind
    assert word in caught.value.found
    assert caught.value.log == str(tmp_path / "work/log.txt")


def test_a_full_disk_in_a_child_is_named_as_one(call):
    with pytest.raises(NotWritten) as caught:
        call("full_disk")
    assert "No space left" in caught.value.found
    assert "/there/file" in caught.value.found
    assert "room" in caught.value.todo


def test_an_old_answer_is_never_taken_for_a_new_one(call):
    with pytest.raises(UsageError):
        call("usage")
    with pytest.raises(ChildFailed, match="SIGSEGV"):
        call("segfault")


def test_a_missing_function_is_an_error_and_not_our_end(call):
    with pytest.raises(ChildFailed, match="nothing_here"):
        call("nothing_here")


def test_a_timeout_ends_the_child_and_its_grandchild(call, tmp_path: Path):
    path = tmp_path / "pids"
    start = time.monotonic()
    with pytest.raises(ChildFailed) as caught:
        call("hang", Limits(2), path=str(path))
    assert time.monotonic() - start < 15
    assert caught.value.kind == "timeout"
    assert "2 s" in caught.value.found
    assert "--timeout" in caught.value.todo
    for pid in json.loads(path.read_text()):
        wait_for(lambda pid=pid: gone(pid))


def test_what_gives_more_time_is_what_the_caller_says(call, tmp_path: Path):
    with pytest.raises(ChildFailed) as caught:
        call("hang", Limits(0.1, options=("timeout_s", "memory_gib")), path=str(tmp_path / "pids"))
    assert caught.value.kind == "timeout"
    assert "with timeout_s," in caught.value.todo and "--" not in caught.value.todo


def test_a_grandchild_that_outlives_the_child_is_ended_too(call, tmp_path: Path):
    path = tmp_path / "pids"
    assert call("hang", path=str(path), kind="leaves") == {}
    for pid in json.loads(path.read_text()):
        wait_for(lambda pid=pid: gone(pid))


def test_memory_over_the_limit_ends_the_child_before_the_machine_suffers(call, tmp_path: Path):
    with pytest.raises(ChildFailed) as caught:
        call("grow", Limits(60, GIB // 4), path=str(tmp_path / "pids"))
    assert caught.value.kind == "oom"
    assert "0.25 GiB" in caught.value.found
    assert "--memory" in caught.value.todo


SPAWN = """
import pathlib, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(other.pid))
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("seconds", [0, 600])
def test_a_commands_whole_group_ends_with_it(tmp_path: Path, seconds: int):
    """Of any command, ours or not; whether it ended by itself or was ended."""
    child = Child([sys.executable, "-c", SPAWN, str(tmp_path / "pid"), str(seconds)], tmp_path / "log")
    assert child.watch(Limits(timeout_s=3)).kind == ("timeout" if seconds else "ok")
    wait_for(lambda: gone(int((tmp_path / "pid").read_text())))


def test_no_answer_is_read_from_a_child_that_was_ended(tmp_path: Path, env: dict[str, str]):
    running = process.start("jobs:hang", {"path": str(tmp_path / "p")}, workdir=tmp_path / "w", label="it", env=env)
    wait_for((tmp_path / "p").exists)
    running.cancel()
    with pytest.raises(ChildFailed, match="SIGKILL"):
        running.result()
    assert not (tmp_path / "w/result.json").exists()


def test_an_answer_appears_whole_or_not_at_all(tmp_path: Path, env: dict[str, str]):
    """The answer is moved into place: a half-written one is never under its name."""
    seen = []
    running = process.start("jobs:echo", {"x": "y" * 5_000_000}, workdir=tmp_path / "w", label="it", env=env)
    result = tmp_path / "w/result.json"
    while running.child.process.poll() is None:
        if result.exists():
            seen.append(len(json.loads(result.read_text())["result"]["args"]["x"]))
    assert set(seen) <= {5_000_000}
    assert len(running.result()["args"]["x"]) == 5_000_000


def test_an_exception_while_waiting_ends_the_child(tmp_path: Path, env: dict[str, str]):
    running = process.start("jobs:hang", {"path": str(tmp_path / "p")}, workdir=tmp_path / "w", label="it", env=env)
    wait_for((tmp_path / "p").exists)

    def ring(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            running.result()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    for pid in json.loads((tmp_path / "p").read_text()):
        wait_for(lambda pid=pid: gone(pid))
    assert running.child not in process._ALIVE


def test_end_all_ends_what_is_still_running(tmp_path: Path):
    child = Child([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
    assert child in process._ALIVE
    process.end_all()
    assert child.process.poll() == -signal.SIGKILL
    assert child not in process._ALIVE
    child.kill()  # twice is no harm


PARENT = """
import sys
from pathlib import Path
from seatrial.core import process

process.call("jobs:hang", {"path": sys.argv[1]}, workdir=Path(sys.argv[2]), label="it")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word on a parent's death is Linux's")
@pytest.mark.parametrize("halted", [False, True])
def test_a_killed_parent_takes_its_child_along(tmp_path: Path, env: dict[str, str], halted: bool):
    path = tmp_path / "pids"
    argv = [sys.executable, "-P", "-c", PARENT, str(path), str(tmp_path / "work")]
    parent = subprocess.Popen(argv, env={**os.environ, **env})
    pids: list[int] = []
    try:
        wait_for(path.exists)
        wait_for(lambda: path.read_text().endswith("]"))
        pids = json.loads(path.read_text())
        if halted:  # as a training is while another process measures
            os.killpg(os.getpgid(pids[0]), signal.SIGSTOP)
        parent.kill()
        parent.wait()
        for pid in pids:
            wait_for(lambda pid=pid: gone(pid))
    finally:
        parent.kill()
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_child_of_a_dead_parent_does_not_start_working(tmp_path: Path, env: dict[str, str]):
    (tmp_path / "job.json").write_text(json.dumps({"function": "jobs:echo", "args": {}, "label": "it"}))
    argv = process.module_command("seatrial.core.child", str(tmp_path))
    orphan = {**os.environ, **env, "SEATRIAL_PARENT": "1"}
    assert subprocess.run(argv, env=orphan).returncode == 1
    assert not (tmp_path / "result.json").exists()


def test_a_child_runs_offline_and_does_not_import_from_the_working_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    (tmp_path / "seatrial.py").write_text("raise SystemExit('the wrong seatrial')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/facts.py").write_text(
        "import os, numpy\ndef tell(): return {'file': numpy.__file__, 'offline': os.environ['HF_HUB_OFFLINE']}"
    )
    env = {"PYTHONPATH": str(tmp_path / "p")}
    found = process.call("facts:tell", {}, workdir=tmp_path / "w", limits=Limits(60), label="it", env=env)
    assert found["offline"] == "1"
    assert not found["file"].startswith(str(tmp_path))
