"""Facts of a host: what identifies it stays, what passes stands beside it."""

from __future__ import annotations

import copy
import json
import platform

from seatrial.devices import facts


def test_facts_are_data_and_name_the_processor():
    found = facts.host_facts()
    assert json.loads(json.dumps(found)) == found
    assert found["identity"]["cpu"] != "unknown"
    assert found["identity"]["machine"] == platform.machine()
    assert found["identity"]["cores"] == len(found["moment"]["cores"])


def test_the_fingerprint_forgets_the_moment_and_knows_the_runtime():
    one = facts.host_facts()
    other = copy.deepcopy(one)
    other["moment"] |= {"kernel": "another", "load": [9, 9, 9]}
    runtime = {"name": "onnxruntime", "version": "1"}
    assert facts.fingerprint(one, runtime) == facts.fingerprint(other, runtime)
    assert facts.fingerprint(one, runtime) != facts.fingerprint(one, {**runtime, "version": "2"})
    other["identity"]["cores"] += 1
    assert facts.fingerprint(one, runtime) != facts.fingerprint(other, runtime)


def test_an_arm_board_is_named_by_its_board_and_cores(monkeypatch):
    files = {
        "/proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp i8mm\nCPU part : 0xd0b\n",
        "/proc/device-tree/model": "Raspberry Pi 5 Model B\0",
    }
    monkeypatch.setattr(facts, "_read", lambda path: files.get(path, ""))
    assert facts.cpu_model() == "Raspberry Pi 5 Model B 0xd0b"
    assert facts.cpu_flags() == ("asimd", "asimddp", "i8mm")


def test_disturbance_is_a_delta_and_levels():
    before = {"steal_s": 1.0, "gone": 1.0}
    found = facts.disturbance(before, {"steal_s": 1.5})
    assert found["steal_s"] == 0.5
    assert "gone" not in found
    assert facts.snapshot().keys() <= {"steal_s", "busy_s", "psi_cpu_s"}
