"""What goes wrong around a search over many models: kills, candidates that break things, disks, locks, databases."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgres
import psutil
import pytest
import searches
import sqlalchemy as sa
from searches import begin, facts, outcome, write_model
from seatrial.devices.store import Store, measurements
from seatrial.search.roster import Roster
from seatrial.search.study import Study

MODELS = 6
KILLS = 8
POOL = """
space = {"source": [f"m{i}.onnx" for i in range(8)]}
targets = ["onnxruntime"]
precisions = ["fp32"]
objectives = ["size_bytes", "latency_ms"]
search = {"evaluations": 6}
"""
CRASHING = """
import ctypes, importlib.util, os, sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
place = next(p for p in sys.path if os.path.abspath(p) != HERE and os.path.exists(f"{p}/onnxruntime/__init__.py"))
folder = f"{place}/onnxruntime"
spec = importlib.util.spec_from_file_location(
    "onnxruntime", f"{folder}/__init__.py", submodule_search_locations=[folder]
)
real = sys.modules["onnxruntime"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)


class InferenceSession(real.InferenceSession):
    def __init__(self, path, *args, **options):
        super().__init__(path, *args, **options)
        names = {node.name for node in self.get_inputs()}
        if "dies_when_opened" in names:
            ctypes.string_at(0)
        self.left = 200 if "dies_when_timed" in names else -1  # a proof takes fewer

    def run_with_iobinding(self, *args):
        self.left -= 1
        if self.left == 0:
            ctypes.string_at(0)
        super().run_with_iobinding(*args)


real.InferenceSession = InferenceSession
"""
"""An `onnxruntime` before the real one on the path, that ends its process by SIGSEGV with some models."""


@dataclass
class Ended(searches.Ended):
    """And what the store held afterwards."""

    facts: dict[tuple[str, ...], str] = field(default_factory=dict)


def follow(child: subprocess.Popen[str], where: Path | str, heard: Callable[[str], None] = lambda text: None) -> Ended:
    return Ended(**vars(searches.follow(child, heard)), facts=facts(where))


def search(file: Path, out: Path, *more: str, heard: Callable[[str], None] = lambda text: None, **told: Any) -> Ended:
    return follow(begin(file, out, *more, **told), out / "facts.sqlite", heard)


def good(ended: Ended) -> Ended:
    assert ended.code == 0, ended.error + "\n".join(ended.lines)
    return ended


def count(ended: Ended, kind: str) -> int:
    return sum(key[0] == kind for key in ended.facts)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """A study file of eight small models that are there already."""
    needs("onnxruntime", "onnx")
    folder = tmp_path_factory.mktemp("pool")
    for i, hidden in enumerate((4, 6, 8, 12, 16, 24, 32, 48)):
        write_model(folder / f"m{i}.onnx", hidden)
    (folder / "study.py").write_text(POOL)
    return folder / "study.py"


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished study, its measurements replayed."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    good(search(pool, out, replay=True))
    return out


def test_kills_at_random_moments_lose_nothing_and_change_nothing(pool: Path, undisturbed: Path, tmp_path: Path) -> None:
    rng, before, killed = random.Random(0), {}, 0
    for _ in range(KILLS):
        child = begin(pool, tmp_path / "out", replay=True)
        left = rng.randint(1, 7)

        def hear(text: str, child: subprocess.Popen[str] = child) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                threading.Timer(rng.uniform(0, 0.3), child.send_signal, [signal.SIGKILL]).start()

        ended = follow(child, tmp_path / "out" / "facts.sqlite", hear)
        killed += ended.code == -signal.SIGKILL
        assert before.items() <= ended.facts.items()
        before = ended.facts
    assert killed >= KILLS // 2
    ended = good(search(pool, tmp_path / "out", replay=True))
    assert before.items() <= ended.facts.items()
    raced = [key[3] for key in ended.facts if key[0] == "measured" and "-race" in key[1] and key[3] != "reference"]
    assert len(raced) == len(set(raced)) == MODELS  # nothing was measured twice
    assert outcome(tmp_path / "out") == outcome(undisturbed)


def test_a_launch_that_was_stored_before_a_kill_is_not_measured_again(
    pool: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The moment between a launch and what it says of its model."""
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = facts(out / "facts.sqlite")
    with sqlite3.connect(out / "facts.sqlite") as raw:
        raw.execute("delete from models where id = (select max(id) from models)")
    ended = good(search(pool, out, replay=True))
    assert ended.facts == before
    assert not [line for line in ended.lines if line.startswith("timing")]


def test_two_processes_share_a_study_and_never_measure_at_the_same_time(pool: Path, tmp_path: Path) -> None:
    both = [begin(pool, tmp_path / "out") for _ in range(2)]
    ended: list[Ended] = []
    waiting = threading.Thread(target=lambda: ended.append(follow(both[0], tmp_path / "out" / "facts.sqlite")))
    waiting.start()
    ended.append(follow(both[1], tmp_path / "out" / "facts.sqlite"))
    waiting.join()
    for each in ended:
        good(each)
    assert all([line for line in each.lines if line.startswith("timing")] for each in ended), "one did it all"
    assert count(ended[-1], "model") == MODELS
    spans = []
    with closing(Store(tmp_path / "out" / "facts.sqlite")) as store:
        took = sa.func.sum(measurements.c.cost_s)
        query = sa.select(measurements.c.created, took).group_by(measurements.c.session, measurements.c.launch)
        spans = sorted((start, start + cost) for start, cost in store.ask(query))
    assert len(spans) >= MODELS + 2
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    found = outcome(tmp_path / "out")
    assert len(found["models"]) == MODELS
    assert all(found["rows"][id][2] == 2 for id in found["fronts"]["onnxruntime"])


def test_the_claim_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    """That of another machine only after its time: nobody here can see whether it runs."""
    code = (
        "import sys, time\nfrom seatrial.devices.store import Store\nfrom seatrial.search import roster\n"
        "roster.HERE = sys.argv[2] or roster.HERE\n"
        "with roster.Roster(Store(sys.argv[1]), 's').claimed(sys.argv[3], {'v': 1}) as mine:\n"
        "    print(mine, flush=True)\n    time.sleep(100)\n"
    )
    file = tmp_path / "facts.sqlite"
    with closing(Store(file)) as store:
        roster = Roster(store, "s")
        for host, model in (("", "a"), ("elsewhere", "b")):
            argv = [sys.executable, "-P", "-c", code, str(file), host, model]
            child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
            assert child.stdout and child.stdout.readline() == "True\n"
            with roster.claimed(model, {}) as mine:
                assert not mine
            assert roster.others() == {model: {"v": 1}}
            child.kill()  # it isn't waited for: a process whose parent hasn't asked has ended all the same
            while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
            assert bool(roster.others()) == bool(host)
            with roster.claimed(model, {}) as mine:
                assert mine == (not host)
            child.wait()
            child.stdout.close()
        with sqlite3.connect(file) as raw:
            raw.execute("update claims set until = 0 where model = 'b'")
        assert not roster.others()
        with roster.claimed("b", {}) as mine:
            assert mine


def test_models_that_crash_the_runtime_or_a_reader_are_recorded_and_the_others_are_searched(
    pool: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "m0.onnx", 4, "dies_when_opened")
    write_model(tmp_path / "m1.onnx", 6, "dies_when_timed")
    (tmp_path / "m2.onnx").write_text("no model")
    write_model(tmp_path / "m3.onnx", 12)
    write_model(tmp_path / "m4.onnx", 16)
    (tmp_path / "study.py").write_text(POOL.replace("range(8)", "range(5)"))
    (tmp_path / "shim" / "onnxruntime").mkdir(parents=True)
    (tmp_path / "shim" / "onnxruntime" / "__init__.py").write_text(CRASHING)
    child = begin(tmp_path / "study.py", tmp_path / "out", env={"PYTHONPATH": str(tmp_path / "shim")})
    good(follow(child, tmp_path / "out" / "facts.sqlite"))
    models = Study.read(tmp_path / "out").document["models"].values()
    found = {one["values"]["source"]: (one["status"], one["kind"], str(one["reason"])) for one in models}
    assert found["m3.onnx"][0] == found["m4.onnx"][0] == "ok"
    assert {name: each[:2] for name, each in found.items() if each[0] != "ok"} == {
        "m0.onnx": ("failed", "signal"),
        "m1.onnx": ("failed", "signal"),
        "m2.onnx": ("failed", "error"),
    }
    assert "SIGSEGV" in found["m0.onnx"][2]
    assert "no deployment could be timed" in found["m1.onnx"][2] and "SIGSEGV" in found["m1.onnx"][2]


TRAINED = """
import os, time
import torch

targets = ["onnxruntime"]
precisions = ["fp32"]
objectives = ["accuracy"]
space = {"what": ["good", "raises", "leaves", "no exporter", "nan", "slow", "big"]}
search = {"evaluations": 7, "examples": 50, "sampler": "exhaustive"}
budget = {"epochs": 1, "timeout_s": 20.0, "memory_gib": 1.5}


class Net(torch.nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
        self.last = torch.nn.Linear(8, 3)
        # So that no two of them build the same graph.
        self.first = torch.nn.Linear(8 + space["what"].index(what), 8)

    def forward(self, x):
        x = self.first(torch.nn.functional.pad(x, (0, self.first.in_features - 8)))
        return self.last(torch.special.bessel_j0(x) if self.what == "no exporter" else torch.relu(x))


def build(candidate):
    if candidate["what"] == "raises":
        raise ValueError("no such network")
    return Net(candidate["what"])


def get_args(candidate):
    if candidate["what"] == "leaves":
        os._exit(7)
    return (torch.zeros(1, 8),)


def train(model, candidate, budget):
    if candidate["what"] == "nan":
        model.last.weight.data.fill_(float("nan"))
    if candidate["what"] == "slow":
        time.sleep(60)
    held = [torch.ones(1 << 26) for _ in range(8 if candidate["what"] == "big" else 0)]
    time.sleep(len(held))


def get_labels():
    return ["a", "b", "c"]


def load_data(part):
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(len(part))).numpy()
    return x, x[:, :3].argmax(1)
"""


def test_candidates_that_break_their_training_or_conversion_are_recorded_with_their_kinds(
    tmp_path: Path, needs: Callable[..., None]
) -> None:
    needs("torch", "onnxruntime", "onnxscript")
    (tmp_path / "study.py").write_text(TRAINED)
    good(search(tmp_path / "study.py", tmp_path / "out", replay=True))
    study = Study.read(tmp_path / "out")
    found = {one["values"]["what"]: (one["kind"], str(one["reason"])) for one in study.document["models"].values()}
    assert {what for what, (kind, _) in found.items() if kind is None} == {"good"}
    for what, kind, words in (
        ("raises", "error", "no such network"),
        ("leaves", "error", "exit code 7"),
        ("no exporter", "error", "bessel_j0"),
        ("nan", "diverged", "NaN"),
        ("slow", "timeout", "no end after 20 s"),
        ("big", "oom", "limit 1.50 GiB"),
    ):
        assert found[what][0] == kind, found[what]
        assert words in found[what][1]
    assert study.document["models"][study.candidate(study.winners["best"])["model"]]["status"] == "ok"


def test_accuracy_without_labelled_data_is_refused_at_once(pool: Path, tmp_path: Path, main: Any) -> None:
    for options in (("--objective", "accuracy"), ("--subject-to", "macro_f1 >= 0.5")):
        done = main("search", pool, "-o", tmp_path / "out", *options)
        assert done.code == 2
        assert "without labelled data" in done.err and "latency_ms, size_bytes" in done.err
    assert not (tmp_path / "out").exists()


def test_a_search_in_which_everything_fails_says_why(pool: Path, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"m{i}.onnx").write_text("no model")
    (tmp_path / "study.py").write_text(POOL.replace("range(8)", "range(2)"))
    ended = search(tmp_path / "study.py", tmp_path / "out")
    assert ended.code == 4
    assert "no model could be made, proven and timed" in ended.error
    assert "Traceback" not in ended.error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("2m")` is a disk of that size, or makes it as large."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size: str) -> Path:
        again = ["remount,"] if os.path.ismount(folder) else [""]
        mount = ["mount", "-t", "tmpfs", "-o", f"{again[0]}size={size}", "none", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk can't be mounted here")
        return folder

    yield sized
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_a_full_disk_ends_the_search_and_room_lets_it_go_on(
    pool: Path, undisturbed: Path, small_disk: Callable[[str], Path]
) -> None:
    out = small_disk("560k") / "out"
    ended = search(pool, out, replay=True)
    assert ended.code == 5, ended.error
    assert "free some room" in ended.error
    assert "Traceback" not in ended.error
    small_disk("50m")
    before = facts(out / "facts.sqlite")
    assert before
    ended = good(search(pool, out, replay=True))
    assert before.items() <= ended.facts.items()
    assert outcome(out) == outcome(undisturbed)


def test_a_locked_database_is_one_clear_error_and_nothing_is_lost(
    pool: Path, undisturbed: Path, tmp_path: Path
) -> None:
    locks: list[sqlite3.Connection] = []

    def lock(text: str) -> None:
        if text.startswith("proving") and not locks:
            locks.append(sqlite3.connect(tmp_path / "out" / "facts.sqlite", isolation_level=None))
            locks[0].execute("begin exclusive")

    child = begin(pool, tmp_path / "out", replay=True, busy_s=0.5)
    ended = follow(child, str(tmp_path / "none.sqlite"), lock)
    assert ended.code == 5
    assert "database is locked" in ended.error and "it goes on" in ended.error
    assert "Traceback" not in ended.error
    locks[0].rollback()
    locks[0].close()
    good(search(pool, tmp_path / "out", replay=True))
    assert outcome(tmp_path / "out") == outcome(undisturbed)


@pytest.fixture(scope="module")
def database(needs: Callable[..., None]) -> Iterator[postgres.Server]:
    needs("psycopg")
    programs = postgres.programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed")
    with postgres.server(programs) as server:
        yield server


def test_a_database_that_crashes_and_comes_back_is_waited_for_by_two_machines(
    pool: Path, tmp_path: Path, database: postgres.Server, cli: Callable[..., Any]
) -> None:
    url = database.database("shared")
    out, more = tmp_path / "out", ("--store", url)
    both = [begin(pool, out, *more, replay=True, host=host) for host in ("one", "two")]
    crashed = threading.Event()

    def crash(text: str) -> None:
        if text.startswith("model 3") and not crashed.is_set():
            crashed.set()
            database.stop("immediate")
            time.sleep(1.0)
            database.start()

    ended: list[Ended] = []
    waiting = threading.Thread(target=lambda: ended.append(follow(both[0], url)))
    waiting.start()
    ended.append(follow(both[1], url, crash))
    waiting.join()
    assert crashed.is_set()
    for each in ended:
        good(each)
    stored = facts(url)
    assert {key[1].partition("@")[2] for key in stored if key[0] == "measured"} == {"one", "two"}
    assert sum(key[0] == "model" for key in stored) == MODELS
    # Without the database the study is whole.
    assert facts(out / "facts.sqlite") == stored
    database.stop("fast")
    try:
        assert cli("study", "show", out).code == 0
        done = cli("study", "select", out, "--minimize", "size_bytes", "-o", tmp_path / "packed")
        assert done.code == 0, done.err
        asked = search(pool, out, *more, replay=True)
        assert asked.code == 5 and "check the URL" in asked.error
    finally:
        database.start()


def test_facts_that_were_kept_in_the_folder_go_on_in_a_database(
    pool: Path, undisturbed: Path, tmp_path: Path, database: postgres.Server
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = facts(out / "facts.sqlite")
    url = database.database("later")
    ended = good(search(pool, out, "--store", url, replay=True))
    assert not [line for line in ended.lines if line.startswith(("timing", "proving", "confirming"))]
    assert facts(url) == facts(out / "facts.sqlite") == before
    # Those facts are of files in this folder: another one can't go on with them.
    other = search(pool, tmp_path / "other", "--store", url, replay=True)
    assert other.code == 2 and f"they are of the study in {out}" in other.error
