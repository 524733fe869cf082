"""Choosing again from a finished study: by costs, failed examples, slices, a user's function, another runtime."""

from __future__ import annotations

import functools
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core.bundle import Bundle
from seatrial.core.errors import CheckFailed, ChildFailed, UsageError
from seatrial.devices.store import Store
from seatrial.exporter.decision import COST, DECISION
from seatrial.exporter.run import load, verify
from seatrial.search import race
from seatrial.search.run import search
from seatrial.search.several import Widened, keep_widened
from seatrial.search.study import Study
from seatrial.search.trials import Trials
from seatrial.targets.onnxruntime import OnnxRuntime
from seatrial.targets.openvino import OpenVino

underway = importlib.import_module("seatrial.search.underway")

MODEL = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(16, 32)
        self.last = torch.nn.Linear(32, 4)

    def forward(self, x):
        return 6 * self.last(torch.relu(self.first(x)))


def get_model():
    return Net().eval()


def get_args():
    return (torch.randn(1, 16, generator=torch.Generator().manual_seed(1)),)


def get_labels():
    return ["ant", "bee", "cat", "dog"]
"""
COSTS = "true,ant,bee,cat,dog,ask\nant,0,1,1,1,0.5\nbee,1,0,1,1,0.5\ncat,30,30,0,30,0.5\ndog,1,1,1,0,0.5\n"
EQUAL = "true,ant,bee,cat,dog\nant,0,1,1,1\nbee,1,0,1,1\ncat,1,1,0,1\ndog,1,1,1,0\n"
FUNCTION = """
import search  # the user's own, not ours


def margin(outputs, labels):
    return outputs.max(1) * search.SCALE


def share(outputs, labels):
    return float((outputs.argmax(1) == labels).mean())


def raises(outputs, labels):
    return outputs.nothing


def pair(outputs, labels):
    return [1.0, 2.0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """A model, its data with a fifth of the labels wrong, cost matrices and a user's functions."""
    needs("torch", "onnxruntime")
    import torch

    folder = tmp_path_factory.mktemp("choose")
    (folder / "net.py").write_text(MODEL)
    names: dict[str, Any] = {}
    exec(MODEL, names)
    rng = np.random.default_rng(1)
    for name, n in (("calibration", 20), ("evaluate", 120), ("confirm", 300), ("failed", 30)):
        x = rng.standard_normal((n, 16)).astype(np.float32)
        with torch.no_grad():
            labels = names["get_model"]()(torch.from_numpy(x)).argmax(1).numpy()
        wrong = rng.uniform(size=n) < 0.2
        labels[wrong] = rng.integers(0, 4, wrong.sum())
        more = {} if name == "calibration" else {"labels": labels}
        if name == "evaluate":  # every second one of a larger set
            more["rows"] = 2 * np.arange(n)
        np.savez(folder / f"{name}.npz", x=x, **more)
    for name, text in (("costs.csv", COSTS), ("equal.csv", EQUAL), ("mine.py", FUNCTION), ("search.py", "SCALE = 2")):
        (folder / name).write_text(text)
    return folder


def quick(patch: pytest.MonkeyPatch) -> None:
    """Few candidates and short launches: nothing here depends on who is the faster."""
    patch.setattr(underway, "Plan", functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02))
    patch.setattr(underway, "CONFIRM_LAUNCHES", 3)
    patch.setattr(race, "MOST", 1)
    patch.setattr(OnnxRuntime, "choices", lambda self: {"graph_optimization": ("all", "basic")})


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """A study of ONNX Runtime in fp32 and int8, never touched."""
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        data = {name: folder / f"{name}.npz" for name in ("calibration", "evaluate", "confirm")}
        # Where the CPU has VNNI, int8 is another recipe and loses two of the 120.
        search(folder / "net.py", "onnxruntime", output=folder / "out", threads=[1], max_drop=0.05, **data)
    return folder / "out"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Study:
    """A copy of the study, to be added to."""
    return Study.read(shutil.copytree(finished, tmp_path / "study"))


def facts(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """Trials and measurements."""
    store = Store(folder / "facts.sqlite")
    try:
        found = Trials(store, (folder / "work" / "key").read_text()).all(), store.find()
    finally:
        store.close()
    return found


def replies(bundle: Path, data: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a packed bundle answers over labelled data, and the labels."""
    model, arrays = load(bundle), np.load(data)
    found = [model.run({"x": x[None]}) for x in arrays["x"]]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}, arrays["labels"]


def test_what_a_cost_matrix_scores_is_what_the_packed_bundle_decides(study: Study, folder: Path) -> None:
    before, said = facts(study.folder), []
    added = study.add_objective("missed", cost=folder / "costs.csv", say=said.append)
    assert said == ["scoring missed"]
    assert facts(study.folder) == before
    assert (added.retrainings, added.conversions, added.replays) == (0, 0, 0)
    chosen = study.select(minimize="missed", targets=["onnxruntime"])
    out = study.folder.parent / "bundle"
    bundle = study.pack(chosen["id"], out, cost=folder / "costs.csv")
    assert verify(out)["vectors"] == 3
    answers, labels = replies(out, folder / "evaluate.npz")
    matrix = np.array([[float(x) for x in line.split(",")[1:]] for line in COSTS.splitlines()[1:]])
    assert added.estimates[chosen["id"]].value == pytest.approx(matrix[labels, answers[DECISION]].mean())
    assert answers[COST].shape == (120, 5)
    assert bundle.manifest["decision"]["decisions"][-1] == "ask"
    costs = study.cost_of("missed", chosen["id"])
    answers, labels = replies(out, folder / "confirm.npz")
    assert costs["confirm"]["rule"].value == pytest.approx(matrix[labels, answers[DECISION]].mean())
    plain = matrix[labels, answers["output"].argmax(1)].mean()
    assert costs["confirm"]["plain"].value == pytest.approx(plain)
    assert costs["confirm"]["rule"].value < plain, "that is what the rule is for"


def test_costs_change_without_another_conversion(study: Study, folder: Path, main: Callable[..., Any]) -> None:
    made = sorted(str(p) for p in study.folder.glob("work/[cq]*/**/*.onnx"))
    outs = [study.folder.parent / name for name in ("first", "second")]
    for out, costs in zip(outs, ("costs.csv", "equal.csv"), strict=True):
        done = main("study", "select", study.folder, "--cost", folder / costs, "-o", out)
        assert done.code == 0, done.err
    rules = [Bundle.read(out).manifest["decision"] for out in outs]
    assert [len(rule["decisions"]) for rule in rules] == [5, 4]
    assert sorted(str(p) for p in study.folder.glob("work/[cq]*/**/*.onnx")) == made
    answers, _ = replies(outs[1], folder / "evaluate.npz")
    assert answers[DECISION].tolist() == answers["output"].argmax(1).tolist(), "equal costs change no decision"
    main("study", "select", study.folder, "--cost", folder / "mine.py", "-o", outs[0], "--overwrite").fails(2, "cost")


def test_an_added_objective_is_kept_and_selected_by(study: Study, folder: Path, main: Callable[..., Any]) -> None:
    argv = ["study", "objectives", "add", study.folder, "missed", "--cost", folder / "costs.csv"]
    done = main(*argv, "--subject-to", "missed <= 25", "-o", study.folder.parent / "packed", "--json")
    assert done.code == 0, done.err
    first = json.loads(done.out)
    assert (first["retrainings"], first["chosen"]["bounds"][0]["bound"]) == (0, "missed <= 25")
    assert Bundle.read(study.folder.parent / "packed").manifest["decision"]
    again = main(*argv)
    assert again.code == 0, again.err
    assert "retrainings: 0, conversions: 0" in again.out
    main(*argv[:-2], "--cost", folder / "equal.csv").fails(2, "one of that name", "another name")
    main(*argv[:-3], "latency_ms").fails(2, "every study has it")
    value = first["chosen"]["objective"]["value"]
    line = f"missed <= {value + 1e-6:.9g}"
    chosen = json.loads(main("study", "select", study.folder, "--subject-to", line, "--json").out)
    assert chosen["bounds"][0]["value"] <= value + 1e-6
    assert 0.4 < chosen["bounds"][0]["probability"] < 0.6
    main("study", "select", study.folder, "--subject-to", line, "--confidence", "0.99").fails(1, "nobody surely has")
    main("study", "select", study.folder, "--subject-to", "missed <= -1").fails(1, "the nearest has", "onnxruntime")
    assert "missed" in main("study", "show", study.folder).out
    assert "expected cost" in main("study", "objectives", "list", study.folder).out


def test_stored_artifacts_are_run_once_on_new_examples(study: Study, folder: Path) -> None:
    said: list[str] = []
    added = study.add_objective("failures", data=folder / "failed.npz", say=said.append)
    assert added.replays == 2, "fp32 and int8, whatever the optimisation level"
    assert len([line for line in said if line.startswith("replaying")]) == 2
    chosen = study.select(maximize="failures")
    study.pack(chosen["id"], study.folder.parent / "bundle")
    answers, labels = replies(study.folder.parent / "bundle", folder / "failed.npz")
    right = (answers["output"].argmax(1) == labels).mean()
    assert added.estimates[chosen["id"]].value == pytest.approx(right)
    assert added.estimates[chosen["id"]].n == 30
    again = study.add_objective("by_cost", data=folder / "failed.npz", cost=folder / "costs.csv")
    assert again.replays == 0
    assert set(study.cost_of("by_cost", chosen["id"])) == {"new"}


KILLED = """
import os, signal, sys
from seatrial.search.study import Study

def say(text):
    print(text, flush=True)
    if text.startswith("replaying onnxruntime " + sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

Study.read(sys.argv[1]).add_objective("failures", data=sys.argv[2], say=say)
"""


def test_a_kill_loses_no_run_on_new_examples(study: Study, folder: Path) -> None:
    first = study.add_objective("before", cost=folder / "costs.csv")
    orders: list[str] = []
    other = Study.read(shutil.copytree(study.folder, study.folder.parent / "other"))
    other.add_objective("failures", data=folder / "failed.npz", say=orders.append)
    second = [line.split()[2] for line in orders if line.startswith("replaying")][1]
    argv = [sys.executable, "-P", "-c", KILLED, study.folder, folder / "failed.npz", second]
    done = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert set(study.objectives) == {"before"}
    assert study.estimates("before") == first.estimates
    assert study.add_objective("failures", data=folder / "failed.npz").replays == 1
    assert study.estimates("failures") == other.estimates("failures")


@pytest.mark.parametrize(
    ("labels", "words"),
    [(None, "no labels"), ([0] * 29 + [4], "labels 4"), ([0] * 29 + [-1], "labels -1")],
)
def test_new_examples_need_labels_that_the_model_has(
    study: Study, folder: Path, tmp_path: Path, labels: list[int] | None, words: str
) -> None:
    arrays = {"x": np.load(folder / "failed.npz")["x"], **({"labels": np.array(labels)} if labels else {})}
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(UsageError) as error:
        study.add_objective("new", data=tmp_path / "new.npz")
    assert words in error.value.found
    assert "new" not in study.objectives


def test_a_slice_looks_at_its_examples_alone(study: Study, folder: Path, tmp_path: Path) -> None:
    labels = np.load(folder / "evaluate.npz")["labels"]
    cats = study.add_objective("cats", slice="class=cat")
    best = study.select(maximize="cats")["id"]
    assert cats.estimates[best].n == (labels == 2).sum()
    (tmp_path / "few.txt").write_text("6\n10\n\n16\n")
    assert study.add_objective("few", slice=f"few={tmp_path / 'few.txt'}").estimates[best].n == 3
    for text, words in (
        ("class=cow", "no such class"),
        ("few", "can't be read"),
        (f"few={tmp_path / 'none.txt'}", "no such file"),
    ):
        with pytest.raises(UsageError) as error:
            study.add_objective("bad", slice=text)
        assert words in error.value.found
    for lines, words in (("239", "no such example: 239"), ("photo.jpg", "have no names"), ("", "no example")):
        (tmp_path / "few.txt").write_text(lines)
        with pytest.raises(UsageError) as error:
            study.add_objective("bad", slice=f"few={tmp_path / 'few.txt'}")
        assert words in error.value.found


def test_indices_count_the_whole_data_of_which_some_were_judged(study: Study, folder: Path, tmp_path: Path) -> None:
    labels = np.load(folder / "evaluate.npz")["labels"]
    cats = study.add_objective("cats", slice="class=cat").estimates
    rows = [2 * i for i in np.flatnonzero(labels == 2)]
    (tmp_path / "rows.txt").write_text("\n".join(map(str, rows)))
    same = study.add_objective("same", slice=f"cats={tmp_path / 'rows.txt'}")
    assert same.estimates == cats and "were judged" not in same.objective.text
    (tmp_path / "more.txt").write_text("\n".join(map(str, [1, 3, *rows, 5])))
    added = study.add_objective("more", slice=f"cats={tmp_path / 'more.txt'}")
    assert added.estimates == cats
    told = f"on cats ({len(rows)} of its {len(rows) + 3} examples are among those that were judged)"
    assert told in added.objective.text and told in study.objectives["more"].text
    (tmp_path / "none.txt").write_text("1\n3\n")
    with pytest.raises(UsageError, match="none of its 2 examples is among the 120 of 239 that were judged"):
        study.add_objective("bad", slice=f"few={tmp_path / 'none.txt'}")


def test_a_user_s_function_sees_stored_answers_in_a_process_of_its_own(study: Study, folder: Path) -> None:
    mine = folder / "mine.py"
    margin = study.add_objective("margin", function=f"{mine}:margin", direction="min")
    assert study.objectives["margin"].direction == "min"
    found = margin.estimates[study.winners["best"]]
    assert found.n == 120 and found.low is not None and found.low < found.value
    right = study.add_objective("right", function=f"{mine}:share").estimates[study.winners["best"]]
    assert (right.value, right.low) == (study.candidate(study.winners["best"])["accuracy"], None)
    with pytest.raises(ChildFailed) as failed:
        study.add_objective("bad", function=f"{mine}:raises")
    assert "mine.py" in failed.value.asked and "nothing" in failed.value.found
    for name, words in (("pair", "an array of [2] for 120"), ("none", "the file defines margin, share, raises, pair")):
        with pytest.raises(UsageError) as error:
            study.add_objective("bad", function=f"{mine}:{name}")
        assert words in error.value.found
    assert set(study.objectives) == {"margin", "right"}


def test_every_study_has_the_other_objectives_too(study: Study) -> None:
    able = {c["id"] for c in study.candidates if c["status"] == "ok"}
    for name in ("macro_f1", "worst_recall", "calibration_error", "latency_p95_ms", "peak_memory_bytes", "macs"):
        found = study.estimates(name)
        assert able <= set(found), name
        assert all(x.value >= 0 for x in found.values()), name
    best = study.winners["best"]
    assert study.estimates("macs")[best].value == 16 * 32 + 32 * 4
    assert study.estimates("worst_recall")[best].value <= study.estimates("accuracy")[best].value
    row = study.candidate(best)
    assert study.estimates("throughput_per_s")[best].value == pytest.approx(1e3 / row["latency_ms"])
    assert study.estimates("latency_p95_ms")[best].value > 0.5 * row["latency_ms"]
    assert study.estimates("peak_memory_bytes")[best].value > 1e7
    assert study.estimates("parameters")[best].value >= 16 * 32 + 32 * 4


def test_bounds_that_exclude_each_other_name_the_nearest_and_what_binds(study: Study) -> None:
    times = sorted(c["latency_ms"] for c in study.candidates if c["status"] == "ok")
    with pytest.raises(CheckFailed) as error:
        study.select([f"latency_ms <= {times[0]}", f"latency_ms >= {times[-1]}"])
    assert "all together by nobody; the nearest, onnxruntime" in error.value.found
    assert error.value.found.endswith("binds")


def test_a_runtime_not_tried_before_is_measured_for_the_finalists_alone(
    study: Study, needs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("openvino")
    quick(monkeypatch)
    monkeypatch.setattr(OpenVino, "precisions", lambda self, flags: ("fp32",))  # its int8 takes ten seconds
    trials, measurements = facts(study.folder)
    said: list[str] = []
    added = study.add_objective("there", targets=["openvino"], say=said.append)
    after, more = facts(study.folder)
    new = {id: trial for id, trial in after.items() if id not in trials}
    assert {id: after[id] for id in trials} == trials
    assert {(t.candidate.target, t.candidate.is_default) for t in new.values()} == {("openvino", True)}
    assert any(line.startswith("to convert, prove and time: openvino") for line in said)
    assert not any(line.startswith("capturing") for line in said)
    assert added.conversions == len(new) and added.launches == 1 and added.retrainings == 0
    references = {row["artifact"] for row in more if row["arm"] == "reference"}
    assert len(references) == 1, "all launches are held against the same"
    assert more[: len(measurements)] == measurements
    assert set(added.estimates) == set(new)
    assert study.select(minimize="there")["target"] == "openvino"
    assert Bundle.read(study.folder / "openvino").target == "openvino"
    assert Study.read(study.folder).document == study.document
    # As a kill leaves it between study.json and the bundles.
    shutil.rmtree(study.folder / "openvino")
    keep_widened(study.folder, {"openvino": Widened(OpenVino().version())})
    again = study.add_objective("there", targets=["openvino"], say=said.append)
    assert (again.conversions, again.launches) == (0, 0) and said[-2:] == ["packing openvino", "scoring there"]
    assert Bundle.read(study.folder / "openvino").target == "openvino"


def test_another_machine_is_not_asked_for_more(study: Study) -> None:
    study.document["host"]["cpu"] = "Another CPU"
    with pytest.raises(UsageError, match="Another CPU"):
        study.add_objective("there", targets=["openvino"])
