"""Launches of tiny real models, with arms that fail."""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import psutil
import pytest
from seatrial.core.errors import UsageError
from seatrial.devices import launches
from seatrial.devices.arms import Arm, Plan, arm_from_path, arms_from_paths
from seatrial.devices.launches import Launch, OpenArm, orders
from seatrial.devices.results import effects, estimate, rank, summarise
from seatrial.devices.sitting import Sitting
from seatrial.devices.store import Store

FEW = Plan(launches=2, rounds=3, splits=1, block_ms=2, warm_s=0.01)


@pytest.fixture
def arm(model, tmp_path) -> Arm:
    return arm_from_path(model(), tmp_path / "in.npz", "a")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_every_arm_stands_at_every_place_equally_often(n: int):
    names = [str(i) for i in range(n)]
    found = orders(names, n * 6, random.Random(1))
    for place in range(n):
        assert set(Counter(order[place] for order in found).values()) == {6}
    assert found != orders(names, n * 6, random.Random(2)) or n == 1
    assert orders([], 3, random.Random(1)) == []


def test_a_launch_has_raw_samples_of_every_round_and_only_one_worker_runs(arm, tmp_path):
    with Sitting(FEW, seed=5) as sitting:
        launch = sitting.launch([arm, arm.named("b")])
    run = launch.arms["a"]
    assert run.ok
    assert len(run.blocks) == len(launch.order) == 3
    assert all(len(block) == run.k for block in run.blocks)
    assert run.k == launch.arms["b"].k  # set once for what is the same
    assert run.placement is not None
    assert launch.arms["b"].placement is None  # asked once for what is the same
    assert run.opened["warm_iterations"] >= 3
    assert {"steal_s", "load_1m", "preempted"} <= run.notes[0].keys() or os.name != "posix"
    assert Launch.from_dict(json.loads(json.dumps(launch.to_dict()))) == launch


def test_the_same_seed_gives_the_same_order(arm):
    found = []
    for _ in range(2):
        with Sitting(FEW, seed=5) as sitting:
            found.append(sitting.launch([arm, arm.named("b"), arm.named("c")]).order)
    assert found[0] == found[1]


def test_an_arm_that_is_killed_fails_alone(arm, monkeypatch):
    whole = OpenArm.block

    def block(self: OpenArm) -> None:
        if self.arm.name == "b" and len(self.run.blocks) == 1:
            assert self.worker is not None
            os.kill(self.worker.pid, signal.SIGKILL)
        whole(self)

    monkeypatch.setattr(launches.OpenArm, "block", block)
    with Sitting(FEW) as sitting:
        launch = sitting.launch([arm, arm.named("b")])
    assert launch.arms["a"].ok
    assert len(launch.arms["a"].blocks) == 3
    assert launch.arms["b"].status == "signal"
    assert launch.effect("a", "b", "median") is None
    assert summarise([launch], arm.named("b")).status == "signal"


def test_an_arm_that_hangs_meets_the_deadline(arm, monkeypatch):
    whole = OpenArm.block

    def block(self: OpenArm) -> None:
        if self.arm.name == "b":
            assert self.worker is not None
            self.timeout_s = 0.2
            os.kill(self.worker.pid, signal.SIGSTOP)
        whole(self)

    monkeypatch.setattr(launches.OpenArm, "block", block)
    with Sitting(FEW) as sitting:
        launch = sitting.launch([arm, arm.named("b")])
    assert (launch.arms["a"].status, launch.arms["b"].status) == ("ok", "timeout")


def test_an_arm_that_computes_something_else_is_not_timed(bundle, tmp_path):
    good, bad = bundle("good"), bundle("bad", output_error=0.5)
    arms, _ = arms_from_paths([good, bad], tmp_path)
    with Sitting(FEW) as sitting:
        launch = sitting.launch(arms)
    assert launch.arms["good"].ok
    assert launch.arms["good"].opened["sqnr_db"]["y"] > 100
    assert launch.arms["bad"].status == "mismatch"
    assert launch.arms["bad"].blocks == []


def test_a_kept_arm_serves_several_launches_with_one_process(arm):
    with Sitting(FEW) as sitting:
        kept = sitting.keep(arm)
        assert kept.worker is not None
        pid = kept.worker.pid
        found = [sitting.launch([arm, arm.named("b")], rounds=2) for _ in range(2)]
        assert kept.worker.pid == pid
    assert [len(launch.arms["a"].blocks) for launch in found] == [2, 2]
    assert estimate(found, "a", "b").launches == 2


def test_launches_are_stored_as_they_come_and_go_on_after_a_restart(arm, tmp_path):
    for _ in range(2):
        store = Store(tmp_path / "facts.db")
        with Sitting(FEW, session="one", store=store) as sitting:
            sitting.launch([arm, arm.named("b")])
        store.close()
    rows = Store(tmp_path / "facts.db").find(session="one")
    assert [(row["launch"], row["arm"]) for row in rows] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert rows[0]["artifact"] == arm.artifact_id
    assert len(rows[0]["samples"]["run"]["blocks"]) == 3
    assert rows[0]["facts"]["runtime"]["name"] == "onnxruntime"


def test_twenty_times_the_work_takes_much_longer(model, tmp_path):
    arms, _ = arms_from_paths([model("small.onnx", 5), model("large.onnx", 100)], tmp_path)
    with Sitting(FEW) as sitting:
        effect = sitting.launch(arms).effect("small.onnx", "large.onnx", "median")
    assert effect is not None
    assert effect > np.log(3)


def test_ranking_decides_only_what_the_launches_decide():
    rng = np.random.default_rng(3)

    def launch(i: int) -> Launch:
        runs = {}
        for name, ms in (("a", 10.0), ("b", 10.0), ("c", 11.0)):
            level = ms * 1e6 * np.exp(rng.normal(0, 0.003))
            blocks = [[int(level * np.exp(rng.normal(0, 0.002)))] for _ in range(6)]
            runs[name] = launches.ArmRun(name, name, blocks=blocks)
        return Launch(i, "0", [], runs, 0.0)

    found = {(p.a, p.b): p for p in rank([launch(i) for i in range(6)], ["a", "b", "c"])}
    assert not found["a", "b"].decided
    assert "not decided" in found["a", "b"].text
    assert found["a", "c"].decided
    assert found["a", "c"].ratio == pytest.approx(1.1, abs=0.01)


def test_effects_skip_launches_where_one_failed():
    good = launches.ArmRun("a", "a", blocks=[[10]])
    bad = launches.ArmRun("b", "b", status="oom")
    assert effects([Launch(0, "0", [], {"a": good, "b": bad}, 0.0)], "a", "b", "median") == []


def test_names_tell_equal_file_names_apart(model, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    paths = [model("x/m.onnx"), model("y/m.onnx"), tmp_path / "x/m.onnx"]
    arms, failed = arms_from_paths(paths, tmp_path)
    assert [arm.name for arm in arms] == ["x/m.onnx", "y/m.onnx", "x/m.onnx #2"]
    assert not failed


def test_a_plan_refuses_unknown_keys_and_names_the_known():
    with pytest.raises(UsageError, match="rounds"):
        Plan.from_dict({"round": 3})
    assert Plan.from_dict(FEW.to_dict()) == FEW
    with pytest.raises(UsageError):
        Plan(launches=0)


def test_models_that_do_not_fit_into_memory_together_take_turns(model, tmp_path, monkeypatch):
    said: list[str] = []
    small, large = arms_from_paths([model("small.onnx", 5), model("large.onnx", 100)], tmp_path)[0]
    monkeypatch.setattr(launches.facts, "memory_free_bytes", lambda: 1 << 20)
    alive: list[int] = []
    whole = OpenArm.block

    def block(self: OpenArm) -> None:
        alive.append(
            len([c for c in psutil.Process().children() if "seatrial.devices.worker" in " ".join(c.cmdline())])
        )
        whole(self)

    monkeypatch.setattr(OpenArm, "block", block)
    with Sitting(FEW, seed=3, progress=said.append) as sitting:
        found = [sitting.launch([small, large, small.named("again")]) for _ in range(2)]
    assert said == ["no room in memory for all models at once: they take turns"]
    assert set(alive) == {1}
    for launch in found:
        assert launch.alternating
        assert launch.order[1] == launch.order[0][::-1]  # A B B A
        assert [len(run.blocks) for run in launch.arms.values()] == [3, 3, 3]
        effect = launch.effect("small.onnx", "large.onnx", "median")
        assert effect is not None and effect > np.log(3)
    assert found[0].arms["small.onnx"].placement is not None
    assert found[0].arms["again"].placement is None


def test_all_arms_of_a_launch_share_their_cores_and_launches_take_turns_on_them(arm, monkeypatch):
    seen: list[tuple[str, tuple[int, ...]]] = []
    whole = OpenArm.block

    def block(self: OpenArm) -> None:
        assert self.worker is not None
        seen.append((self.arm.name, tuple(psutil.Process(self.worker.pid).cpu_affinity())))
        whole(self)

    monkeypatch.setattr(OpenArm, "block", block)
    given = launches.facts.cores_given()
    with Sitting(FEW) as sitting:
        for index in range(len(given) + 1):
            seen.clear()
            sitting.launch([arm, arm.named("b")])
            assert {cores for _, cores in seen} == {(given[index % len(given)],)}
            assert {name for name, _ in seen} == {"a", "b"}
        seen.clear()
        both = replace(arm, name="both", settings={**arm.settings, "threads": 2})
        sitting.launch([both])
        assert {len(cores) for _, cores in seen} == {min(2, len(given))}


def test_with_room_for_all_they_stay(arm):
    with Sitting(FEW) as sitting:
        assert not sitting.launch([arm, arm.named("b")]).alternating
    assert not sitting.alternating
