"""A deployment search from end to end, killed on its way and gone on with; then read, selected from and moved."""

from __future__ import annotations

import fcntl
import functools
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from seatrial.core.bundle import Bundle
from seatrial.core.errors import CannotDo, UsageError
from seatrial.devices.facts import cpu_flags
from seatrial.devices.store import Store
from seatrial.exporter.run import verify
from seatrial.search import race
from seatrial.search.run import search
from seatrial.search.study import Study
from seatrial.search.trials import Trials, trials
from seatrial.targets import get

underway = importlib.import_module("seatrial.search.underway")

KILLS = {
    "making int8 for openvino": 1.0,
    "proving openvino int8": 0.0,
    "timing, launch 2": 0.0,
    "confirming .* launch 2": 0.0,
    "packing openvino": 0.0,
}
"""Each run is killed so many seconds after it says this; NNCF's process takes longer than the one second."""

SCRIPT = """
import functools, json, sys
import seatrial.search.run as run
import seatrial.search.underway as underway
# The protocol's own rounds and launches would take minutes; what is tested here doesn't depend on them.
underway.Plan = functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02)
underway.CONFIRM_LAUNCHES = 3
study = run.search(**json.loads(sys.argv[1]), say=lambda text: print(text, flush=True))
"""


@dataclass
class Ended:
    """How a run went: its lines, its exit code, and what the store held afterwards."""

    lines: list[str]
    code: int
    rows: dict[tuple[str, str], str]
    left: list[str] = field(default_factory=list)

    def said(self, *words: str) -> list[str]:
        return [line for line in self.lines if re.match("|".join(words), line)]


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    found = {
        "model": str(folder / "classifier.py"),
        "target": "onnxruntime,openvino",
        "output": str(folder / "out"),
        "calibration": str(folder / "calibration.npz"),
        "evaluate": str(folder / "evaluate.npz"),
        "confirm": str(folder / "confirm.npz"),
        "threads": [1],
        "command": "seatrial search classifier.py",
    }
    return found | more


def facts(folder: Path) -> dict[tuple[str, str], str]:
    """Every row of the store as text, by table and key."""
    if not (folder / "facts.sqlite").exists():
        return {}
    key = (folder / "work" / "key").read_text()
    store = Store(folder / "facts.sqlite")
    try:
        rows = {("trial", name): repr(trial) for name, trial in Trials(store, key).all().items()}
        found = store.find()
    finally:
        store.close()
    for row in found:
        name = ("measurement", f"{row['session']} {row['launch']} {row['arm']}")
        assert name not in rows, "measured twice"
        rows[name] = repr(sorted(row.items()))
    return rows


def run(folder: Path, until: str | None = None, after_s: float = 0.0) -> Ended:
    """Search; killed with SIGKILL after the first line that begins as the pattern `until` says."""
    mark = f"seatrial-test-{os.getpid()}-{time.monotonic_ns()}"
    argv = [sys.executable, "-P", "-c", SCRIPT, json.dumps(arguments(folder))]
    env = {**os.environ, "SEATRIAL_TEST_MARK": mark}
    with open(folder / "errors.txt", "w") as errors:
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        lines = []
        assert child.stdout
        for line in child.stdout:
            lines.append(line.strip())
            if until and re.match(until, line):
                time.sleep(after_s)
                os.kill(child.pid, signal.SIGKILL)
        code = child.wait(300)
    assert code in (0, -signal.SIGKILL), f"ended with {code} after {lines}: {(folder / 'errors.txt').read_text()}"
    return Ended(lines, code, facts(folder / "out"), orphans(mark))


def orphans(mark: str) -> list[str]:
    """Processes that carry the mark and outlive their parent by more than a second."""
    end = time.monotonic() + 1
    while (found := [p for p in psutil.process_iter() if _carries(p, mark)]) and time.monotonic() < end:
        time.sleep(0.1)
    return [" ".join(p.cmdline()) for p in found]


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get("SEATRIAL_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, classifier: Callable[[Path], list[str]], needs: Callable[..., None]
) -> Path:
    """The classifier with data to calibrate, evaluate and confirm with."""
    import numpy as np

    needs("torch", "onnxruntime", "openvino", "nncf")
    folder = tmp_path_factory.mktemp("search")
    classifier(folder)
    rng = np.random.default_rng(1)
    for name, n in (("evaluate", 24), ("confirm", 12)):
        images = rng.standard_normal((n, 3, 16, 16)).astype(np.float32)
        np.savez(folder / f"{name}.npz", image=images, labels=rng.integers(0, 6, n))
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Ended]:
    """The runs of one search: killed at each of `KILLS`, then left alone to its end, then once more."""
    return [run(folder, *kill) for kill in (*KILLS.items(), (None,), (None,))]


@pytest.fixture(scope="module")
def study(runs: list[Ended], folder: Path) -> Study:
    return Study.read(folder / "out")


@pytest.fixture
def moved(study: Study, tmp_path: Path) -> Path:
    """A copy of the finished study in another place, to be changed."""
    return Path(shutil.copytree(study.folder, tmp_path / "elsewhere" / "moved"))


def test_each_run_was_really_killed_on_its_way(runs: list[Ended]) -> None:
    for ended, until in zip(runs, KILLS, strict=False):
        assert ended.code == -signal.SIGKILL, until
        assert ended.said(until), f"it never came to {until!r}"
    assert [ended.code for ended in runs[len(KILLS) :]] == [0, 0]


def test_no_fact_is_lost_or_changed_by_a_kill(runs: list[Ended]) -> None:
    for before, after in itertools.pairwise(runs):
        assert before.rows.items() <= after.rows.items()
    assert runs[0].rows, "the first kill came after the first facts"


def test_a_killed_run_leaves_no_process(runs: list[Ended]) -> None:
    assert [ended.left for ended in runs] == [[]] * len(runs)


def test_nothing_is_done_twice_but_the_step_that_was_cut(runs: list[Ended]) -> None:
    said = [line for ended in runs for line in ended.lines]
    cut = {ended.lines[-1] for ended in runs[: len(KILLS)]}
    for word in ("capturing", "making", "proving", "timing", "confirming"):
        steps = [line for line in said if line.startswith(word)]
        assert steps, word
        for step in set(steps):
            assert steps.count(step) == 1 + (step in cut), step
    assert len([line for line in said if line.startswith("capturing")]) == 1


def test_launches_are_numbered_without_gaps(runs: list[Ended], folder: Path) -> None:
    store = Store(folder / "out" / "facts.sqlite")
    trials = Trials(store, (folder / "out" / "work" / "key").read_text())
    raced, confirmed = trials.launches("race"), trials.launches("confirm")
    store.close()
    assert [launch.index for launch in raced] == list(range(len(raced)))
    assert [launch.index for launch in confirmed] == [0, 1, 2]
    assert all(launch.arms[race.REFERENCE].ok for launch in raced)
    assert race.REFERENCE not in confirmed[0].arms


def test_the_same_command_again_measures_nothing(runs: list[Ended], study: Study) -> None:
    assert runs[-1].rows == runs[-2].rows
    assert not runs[-1].said("capturing", "converting", "making", "proving", "timing", "confirming")


def test_every_candidate_is_there_with_its_reason(study: Study) -> None:
    found = {(c["target"], c["precision"], c["settings"].get("graph_optimization")) for c in study.candidates}
    levels = ("all", "extended", "basic")
    assert found == {("onnxruntime", p, level) for p in ("fp32", "int8") for level in levels} | {
        ("openvino", p, None) for p in get("openvino").precisions(cpu_flags()) if p != "fp16"
    }
    for c in study.candidates:
        assert c["reason"] is None or len(c["reason"]) > 10
        assert (c["reason"] is None) == (c["id"] == study.winners["best"])
        if c["status"] == "ok":
            assert c["latency_ms"] > 0
            assert c["sqnr_db"] >= (80 if c["precision"] == "fp32" else 10)
            assert c["ran_precision"] == c["precision"]


def test_int8_that_runs_in_float_is_refused(study: Study) -> None:
    """With few optimisations ONNX Runtime computes QDQ models in float: that is no int8 candidate."""
    (found,) = [
        c for c in study.candidates if c["settings"].get("graph_optimization") == "basic" and c["precision"] == "int8"
    ]
    assert found["status"] == "infeasible"
    assert found["reason"] == "fp32 ran, int8 was asked for"


def test_the_winners_are_the_fastest_of_what_was_confirmed(study: Study) -> None:
    assert set(study.winners) == {"best", "onnxruntime", "openvino"}
    confirmed = [c for c in study.candidates if c["launches"] == 3 and c["latency_low_ms"] and c["status"] == "ok"]
    for target in ("onnxruntime", "openvino"):
        winner = study.candidate(study.winners[target])
        assert winner["latency_ms"] == min(c["latency_ms"] for c in confirmed if c["target"] == target)
    assert study.winners["best"] in (study.winners["onnxruntime"], study.winners["openvino"])


def test_accuracy_is_confirmed_on_data_that_nothing_was_chosen_by(study: Study) -> None:
    winner = study.candidate(study.winners["best"])
    assert 0 <= winner["accuracy"] <= 1
    assert 0 <= winner["confirmed_accuracy"] <= 1
    assert (study.document["data"]["evaluate"]["n"], study.document["data"]["confirm"]["n"]) == (24, 12)
    assert not any("not confirmed" in note for note in study.document["notes"])


@pytest.mark.parametrize("name", ["best", "onnxruntime", "openvino"])
def test_the_bundles_are_whole_and_say_what_was_chosen(study: Study, name: str) -> None:
    bundle = Bundle.read(study.folder / name)
    chosen = study.candidate(study.winners[name])
    assert verify(bundle.path)["vectors"] == 3
    assert (bundle.target, bundle.precision, bundle.settings) == tuple(
        chosen[key] for key in ("target", "precision", "settings")
    )
    measured = json.loads((bundle.path / "measurements.json").read_text())
    assert measured["latency_ms"] == chosen["latency_ms"]
    assert measured["host"]["runtimes"][bundle.target] == bundle.manifest["tools"][bundle.target]


def test_the_page_shows_every_candidate(study: Study) -> None:
    page = (study.folder / "report.html").read_text()
    assert all(c["id"] in page for c in study.candidates)


def test_no_half_made_folder_is_left(study: Study) -> None:
    known = {"best", "onnxruntime", "openvino", "work", "study.json", "report.html"}
    assert {p.name for p in study.folder.iterdir() if not p.name.startswith("facts.sqlite")} == known


def test_costs_are_of_all_runs_together(study: Study) -> None:
    seconds = study.document["cost"]["seconds"]
    assert set(seconds) >= {"capture", "convert", "quantize", "prove", "measure", "confirm"}
    assert seconds["prove"] > 0.5


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"threads": [1, 2]}, {"max_drop": 0.5}, {"confirm": None}, {"precision": "fp32"}]
)
def test_other_arguments_are_refused_and_nothing_is_touched(
    study: Study, runs: list[Ended], folder: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as error:
        search(**arguments(folder, **change))
    assert "other arguments" in error.value.found
    assert facts(study.folder) == runs[-1].rows
    assert (study.folder / "best" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["classifier.py", "calibration.npz", "evaluate.npz"])
def test_other_bytes_under_the_same_name_are_other_arguments(
    study: Study, folder: Path, tmp_path: Path, name: str
) -> None:
    for file in folder.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    with open(tmp_path / name, "ab") as file:
        file.write(b"\n# changed\n")
    with pytest.raises(UsageError, match="other arguments"):
        search(**arguments(tmp_path, output=study.folder))


def test_another_runtime_version_is_another_search(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches of two versions must never be held together."""
    from seatrial.targets import get

    monkeypatch.setattr(type(get("openvino")), "version", lambda self: "2030.1")
    with pytest.raises(UsageError, match="runtime version"):
        search(**arguments(folder))


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_searches_never_share_a_folder(study: Study, folder: Path, overwrite: bool) -> None:
    with open(study.folder / "work" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another search is writing to it"):
            search(**arguments(folder, overwrite=overwrite))
    assert (study.folder / "best" / "manifest.json").exists()


class Stop(Exception):
    """Raised by a test to end a search."""


def until(word: str, said: list[str]) -> Callable[[str], None]:
    """Keeps what a search says, and ends it when it says `word`."""

    def say(text: str) -> None:
        said.append(text)
        if text.startswith(word):
            raise Stop(text)

    return say


def test_overwrite_of_the_very_same_search_begins_anew(moved: Path, folder: Path) -> None:
    before = facts(moved)
    with pytest.raises(Stop):
        search(**arguments(folder, output=moved, overwrite=True), say=until("capturing", []))
    assert facts(moved) == before
    assert verify(moved / "best")["vectors"] == 3


def test_overwrite_begins_anew_and_the_old_study_stays_until_the_new_one_is_whole(
    moved: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(underway, "Plan", functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02))
    monkeypatch.setattr(underway, "CONFIRM_LAUNCHES", 3)
    before, document = facts(moved), Study.read(moved).document
    said: list[list[str]] = [[], [], []]
    less = {"target": "onnxruntime", "precision": "fp32", "calibration": None, "confirm": None}
    anew = arguments(folder, output=moved, overwrite=True, **less)
    for lines, word in zip(said, ("proving", "packing"), strict=False):
        with pytest.raises(Stop):
            search(**anew, say=until(word, lines))
        assert facts(moved) == before
        assert Study.read(moved).document == document
        assert verify(moved / "best")["vectors"] == 3
    found = search(**anew, say=said[2].append)
    assert said[0][0].startswith("capturing")
    assert [line for line in said[1] + said[2] if line.startswith("capturing")] == []
    assert [line for line in said[2] if line.startswith(("proving", "timing", "confirming"))] == []
    assert [p.name for p in moved.parent.iterdir()] == ["moved"]
    assert Study.read(moved) == found
    assert {c["target"] for c in found.candidates} == {"onnxruntime"}
    assert not (moved / "openvino").exists()
    assert verify(moved / "best")["vectors"] == 3


def test_an_old_study_that_a_kill_left_aside_is_put_back(moved: Path, folder: Path, runs: list[Ended]) -> None:
    moved.rename(moved.with_name(".moved.seatrial-old"))
    with pytest.raises(UsageError, match="other arguments"):
        search(**arguments(folder, output=moved, seed=1))
    assert facts(moved) == runs[-1].rows


def test_the_working_folder_is_never_taken_away(moved: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(moved)
    with pytest.raises(UsageError, match="working folder"):
        search(**arguments(folder, output=".", overwrite=True))
    assert (moved / "best" / "manifest.json").exists()


LOADS = """

import pathlib
inner = get_model
def get_model():
    model = inner()
    model.load_state_dict(torch.load(pathlib.Path(__file__).parent / "far" / "weights.pt", weights_only=True))
    return model
"""


def test_weights_from_elsewhere_that_changed_are_another_search(folder: Path, tmp_path: Path) -> None:
    import torch

    (tmp_path / "far").mkdir()
    (tmp_path / "classifier.py").write_text((folder / "classifier.py").read_text() + LOADS)
    weights = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "head.weight": (6, 8), "head.bias": (6,)}
    fp32 = {"calibration": None, "precision": "fp32", "target": "onnxruntime"}
    again = arguments(folder, model=tmp_path / "classifier.py", output=tmp_path / "out", **fp32)
    steps = [(0, False, Stop), (0, False, Stop), (1, False, "add --overwrite"), (1, True, Stop), (0, True, "delete ")]
    for seed, overwrite, wanted in steps:
        torch.manual_seed(seed)
        torch.save({name: torch.randn(shape) for name, shape in weights.items()}, tmp_path / "far" / "weights.pt")
        with pytest.raises((Stop, UsageError)) as error:
            search(**again, overwrite=overwrite, say=until("proving", []))
        if isinstance(error.value, UsageError):
            assert "other code or weights" in error.value.found
            assert error.value.todo.startswith(str(wanted))
        else:
            assert wanted is Stop


COMMAND = """
import functools, sys
import seatrial.cli, seatrial.search.underway as underway
underway.Plan = functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02)
underway.CONFIRM_LAUNCHES = 3
seatrial.cli.main(sys.argv[1:])
"""


def test_ctrl_c_at_any_point_leaves_what_the_same_command_goes_on_with(
    tmp_path: Path, tiny_onnx: Callable[..., Path]
) -> None:
    tiny_onnx(tmp_path / "tiny.onnx")
    words = ["search", "tiny.onnx", "--target", "onnxruntime", "--precision", "fp32", "--threads", "1", "-o", "out"]
    before: dict[tuple[str, str], str] = {}
    for word in ("reading", "proving", "timing, launch 1", "confirming", "packing best", None):
        mark = f"seatrial-test-{os.getpid()}-{time.monotonic_ns()}"
        env = {**os.environ, "SEATRIAL_TEST_MARK": mark}
        argv = [sys.executable, "-P", "-c", COMMAND, *words]
        child = subprocess.Popen(
            argv, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        lines = []
        assert child.stderr
        for line in child.stderr:
            lines.append(line.strip())
            if word and f"] {word}" in line:
                child.send_signal(signal.SIGINT)
        assert child.wait(60) == (130 if word else 0), lines
        assert not word or lines[-1] == "interrupted"
        assert not any("Traceback" in line for line in lines)
        assert orphans(mark) == []
        after = facts(tmp_path / "out")
        assert before.items() <= after.items(), word
        assert not list((tmp_path / "out").glob(".*")), word
        before = after
    assert verify(tmp_path / "out" / "best")["vectors"] == 3


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError):
            search(**arguments(folder, output=tmp_path, overwrite=overwrite))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_be_the_working_folder(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(text: str) -> None:
        raise Stop(text)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(Stop):
        search(**arguments(folder, output="."), say=stop)
    assert (tmp_path / "work" / "key").exists()


def test_another_candidate_is_packed_without_measuring(
    study: Study, runs: list[Ended], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    out = tmp_path / "chosen"
    argv = ["study", "select", study.folder, "--subject-to", "sqnr_db <= 79", "--target", "openvino", "-o", out]
    done = cli(*argv)
    assert done.code == 0, done.err
    able = [c for c in study.candidates if c["target"] == "openvino" and c["status"] == "ok" and c["sqnr_db"] <= 79]
    wanted = min(able, key=lambda c: c["latency_ms"])["precision"]  # int8, or bf16 where the CPU has it
    assert wanted != "fp32"
    assert (Bundle.read(out).target, Bundle.read(out).precision) == ("openvino", wanted)
    assert verify(out)["vectors"] == 3
    assert facts(study.folder) == runs[-1].rows
    cli(*argv).fails(2, "it exists")
    assert cli(*argv, "--overwrite").code == 0


@pytest.mark.parametrize("name", ["work", "work/program", "work/lock", "."])
def test_the_study_s_own_folders_are_never_replaced_by_a_bundle(
    moved: Path, cli: Callable[..., Any], name: str
) -> None:
    before = facts(moved)
    cli("study", "select", moved, "-o", moved / name, "--overwrite").fails(2, "the output")
    assert facts(moved) == before
    assert (moved / "work" / "program" / "program.json").exists()


def test_what_was_made_again_otherwise_is_not_packed_as_what_was_proven(moved: Path, tmp_path: Path) -> None:
    found = Study.read(moved)
    chosen = next(c["id"] for c in found.candidates if (c["target"], c["precision"]) == ("onnxruntime", "int8"))
    (model,) = moved.glob("work/quantized/onnxruntime-int8/*.onnx")
    whole = model.read_bytes()
    model.write_bytes((moved / "work/converted/torch-onnx/model.onnx").read_bytes())
    with pytest.raises(UsageError, match="not what was proven"):
        found.pack(chosen, tmp_path / "packed")
    model.unlink()
    with pytest.raises(UsageError, match="is gone"):
        found.pack(chosen, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    model.write_bytes(whole)
    assert found.pack(chosen, tmp_path / "packed").precision == "int8"


def test_a_recipe_is_that_of_the_search_not_of_this_cpu(
    moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Study.read(moved)
    chosen = next(c["id"] for c in found.candidates if (c["target"], c["precision"]) == ("openvino", "int8"))
    here = found.pack(chosen, tmp_path / "here").manifest["recipe"]
    assert here["options"]
    monkeypatch.setattr("seatrial.exporter.quantize.openvino.resolve", lambda flags: {"other": "CPU"})
    assert found.pack(chosen, tmp_path / "there").manifest["recipe"] == here


def test_a_study_is_shown_as_it_was_written(study: Study, cli: Callable[..., Any]) -> None:
    done = cli("study", "show", study.folder, "--json")
    assert json.loads(done.out) == study.document
    table = cli("study", "show", study.folder)
    assert table.code == 0, table.err
    assert "onnxruntime" in table.out


def test_a_moved_study_still_works(
    moved: Path, runs: list[Ended], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seatrial.search.underway.CONFIRM_LAUNCHES", 3)
    found = Study.read(moved)
    assert verify(found.pack(found.winners["openvino"], tmp_path / "packed").path)["vectors"] == 3
    for left in (".best.0a1b2c3d.part", ".openvino.0a1b2c3d.old"):  # as a kill while packing leaves them
        (moved / left).mkdir()
    again = search(**arguments(folder, output=moved))
    assert not list(moved.glob(".*"))
    assert facts(moved) == runs[-1].rows
    assert again.winners == found.winners


def test_a_bundle_packed_elsewhere_says_where_it_was_proven(moved: Path, tmp_path: Path) -> None:
    """A study may be carried to another machine: what was proven on the first stays proven on the first."""
    document = json.loads((moved / "study.json").read_text())
    document["host"] |= {"cpu": "Another CPU", "runtimes": {"onnxruntime": "9.9.9", "openvino": "9.9.9"}}
    (moved / "study.json").write_text(json.dumps(document))
    found = Study.read(moved)
    bundle = found.pack(found.winners["best"], tmp_path / "packed")
    assert bundle.manifest["proven_on"]["cpu"] == "Another CPU"
    assert bundle.manifest["tools"][bundle.target] == "9.9.9"


def test_routes_that_were_lost_are_told_by_a_bundle_packed_later(moved: Path, tmp_path: Path) -> None:
    """A converter that lost doesn't run again when another candidate is packed: its reason is a stored fact."""
    found = Study.read(moved)
    store = Store(moved / "facts.sqlite")
    with store.begin() as connection:
        [(data,)] = connection.execute(
            sa.select(trials.c.data).where(trials.c.candidate == found.winners["best"]), {}
        ).all()
        changed = {**json.loads(data), "lost": ["torch → onnx: it has no such operator"]}
        assert json.loads(data)["lost"] == []
        connection.execute(
            sa.update(trials).where(trials.c.candidate == found.winners["best"]).values(data=json.dumps(changed))
        )
    store.close()
    bundle = found.pack(found.winners["best"], tmp_path / "packed")
    assert bundle.manifest["lost"] == ["torch → onnx: it has no such operator"]


def test_nothing_feasible_is_exit_four_with_every_reason(
    tmp_path: Path, tiny_onnx: Callable[..., Path], cli: Callable[..., Any]
) -> None:
    """An input of huge range that nothing depends on takes all of int8's steps."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(tiny_onnx(tmp_path / "tiny.onnx")))
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w0"))
    onnx.save(model, str(tmp_path / "tiny.onnx"))
    x = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    x[:, 0] *= 1e5
    np.savez(tmp_path / "x.npz", x=x)
    options = [
        "--target",
        "onnxruntime",
        "--precision",
        "int8",
        "--threads",
        "1",
        "--calibration",
        "x.npz",
        "-o",
        "out",
    ]
    done = cli("search", "tiny.onnx", *options, cwd=tmp_path)
    done.fails(4, "no candidate is feasible", "onnxruntime int8 × 1", "dB")
    with pytest.raises(UsageError, match="has not ended"):
        Study.read(tmp_path / "out")


def test_a_precision_that_no_target_has_here_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotDo) as error:
        search(**arguments(folder, output=tmp_path / "out", target="onnxruntime", precision="fp32,bf16"))
    assert "bf16 for onnxruntime" in error.value.asked
    assert not (tmp_path / "out").exists()
