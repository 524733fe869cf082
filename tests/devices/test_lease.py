"""The lease: one measurement at a time, conversions beside each other, and gone with its process."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from seatrial.core.errors import NotWritten
from seatrial.devices import lease

HOLD = """
import sys, time
from seatrial.devices import lease
with getattr(lease, sys.argv[1])(purpose="a test"):
    print("held", flush=True)
    time.sleep(60)
"""


class Waiting(Exception):
    """Raised in place of waiting for a lease."""


def wait(text: str) -> None:
    raise Waiting(text)


def hold(mode: str) -> subprocess.Popen[str]:
    """Another process that holds the lease."""
    process = subprocess.Popen([sys.executable, "-P", "-c", HOLD, mode], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("held", "asked", "free"),
    [("exclusive", "exclusive", False), ("exclusive", "shared", False), ("shared", "exclusive", False)]
    + [("shared", "shared", True)],
)
def test_who_may_be_beside_whom(held: str, asked: str, free: bool):
    other = hold(held)
    try:
        if free:
            with getattr(lease, asked)(progress=wait):
                return
        words = f"process {other.pid} holds it for a test"
        with pytest.raises(Waiting, match=words), getattr(lease, asked)(progress=wait):
            pass
    finally:
        other.kill()
        other.wait()


def test_it_ends_with_the_process_however_that_ends():
    other = hold("exclusive")
    waiting = threading.Timer(0.3, other.kill)
    waiting.start()
    start = time.monotonic()
    with lease.exclusive():
        assert time.monotonic() - start > 0.2
    other.wait()


def test_nested_leases_of_a_thread_are_free_but_no_way_up():
    with lease.exclusive(), lease.exclusive(), lease.shared():
        pass
    with lease.shared(), pytest.raises(RuntimeError), lease.exclusive():
        pass
    with lease.exclusive(progress=wait):  # all of them were given back
        pass


COUNT = """
import sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic()}\\n")
    time.sleep(0.005)
"""
WORK = """
import subprocess, sys
from pathlib import Path
from seatrial.core.process import Child, Limits
from seatrial.devices import lease
with lease.shared(purpose="long work") as held:
    child = Child([sys.executable, "-c", sys.argv[1], sys.argv[2]], Path(sys.argv[2] + ".log"))
    print("held", flush=True)
    print(child.watch(Limits(float(sys.argv[3])), held.give_way).kind, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_long_work_gives_way_to_a_measurement_and_loses_no_time_by_it(tmp_path):
    ticks = tmp_path / "ticks"
    argv = [sys.executable, "-P", "-c", WORK, COUNT, str(ticks), "1.5"]
    worker = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert worker.stdout and worker.stdout.readline() == "held\n"
    while not ticks.exists():
        time.sleep(0.01)
    asked = time.monotonic()
    with lease.exclusive():
        begun = time.monotonic()
        time.sleep(2.0)
        ended = time.monotonic()
    assert begun - asked < 1.0, "it doesn't wait for the work's end"
    assert worker.stdout.readline() == "timeout\n"
    worker.wait()
    times = [float(line) for line in ticks.read_text().split()]
    assert not [t for t in times if begun < t < ended], "nothing runs beside a measurement"
    after = [t for t in times if t > ended]
    assert len(after) > 20, "it went on, and the pause was no part of its 1.5 s"


def test_two_threads_exclude_each_other():
    with lease.exclusive():
        failed: list[Exception] = []

        def other() -> None:
            try:
                with lease.exclusive(progress=wait):
                    pass
            except Waiting as error:
                failed.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(failed) == 1


def test_two_devices_do_not_know_each_other():
    with lease.exclusive("one"), lease.exclusive("two/../x", progress=wait):
        assert lease.lease_file("two/../x").name == "two_.._x.lease"


def test_a_folder_that_is_a_link_is_refused(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path / "link"))
    with pytest.raises(NotWritten), lease.exclusive():
        pass
