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
