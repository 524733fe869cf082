"""Objectives that a study file describes, over data of which some are judged; and one that is added to them later."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.search import race
from seatrial.search.explore import explore
from seatrial.search.study import Study

underway = importlib.import_module("seatrial.search.underway")

STUDY = """
import numpy as np

space: dict = {"source": ["plain.onnx", "shy.onnx"]}
targets = ["onnxruntime"]
precisions = ["fp32"]
objectives: list = [{"name": "few", "slice": "few=few.txt"}, "macro_f1", "latency_ms"]
search = {"evaluations": 2, "examples": 20}


def load_data(part):
    held = np.load(__file__.replace("study.py", "data.npz"))
    return held["x"], held["labels"]


def get_labels():
    return ["ant", "bee", "cat"]
"""
FIRST = "def first(outputs, labels):\n    return outputs[:, 0]\n"
MODELS = {"plain.onnx": 0.0, "shy.onnx": 9.0}
"""By name, what each adds to the score of the first class."""
JUDGED = np.linspace(0, 89, 20).round().astype(int)
FEW = range(40)
"""Rows of the slice, of which some are judged."""


def write_model(path: Path, bias: float) -> None:
    """Scores that are the input (1, 3) itself, but for the first one's bias."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    held = [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")]
    held.append(numpy_helper.from_array(np.array([bias, 0, 0], np.float32), "b"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "net", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    needs("onnxruntime", "onnx")
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    np.savez(
        folder / "data.npz", x=(rng.standard_normal((90, 3)) + 2 * np.eye(3)[labels]).astype(np.float32), labels=labels
    )
    for name, text in (("study.py", STUDY), ("few.txt", "\n".join(map(str, FEW))), ("mine.py", FIRST)):
        (folder / name).write_text(text)
    for name, bias in MODELS.items():
        write_model(folder / name, bias)
    return folder


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    with pytest.MonkeyPatch.context() as patch:  # nothing here depends on who is the faster
        patch.setattr(underway, "Plan", functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02))
        patch.setattr(underway, "CONFIRM_LAUNCHES", 2)
        patch.setattr(race, "MOST", 1)
        return explore(folder / "study.py", output=folder / "out")


def by_model(study: Study, values: dict[str, Any]) -> dict[str, Any]:
    """By the name of a model what is known of its candidates."""
    models = study.document["models"]
    return {models[study.candidate(id)["model"]]["values"]["source"]: value for id, value in values.items()}


def right(folder: Path, bias: float, rows: np.ndarray) -> float:
    """Accuracy over some rows, by numpy."""
    held = np.load(folder / "data.npz")
    return float(((held["x"] + [bias, 0, 0]).argmax(1) == held["labels"])[rows].mean())


def test_a_slice_of_a_study_file_counts_the_whole_data(study: Study, folder: Path) -> None:
    both = np.intersect1d(JUDGED, FEW)
    assert 5 < len(both) < 20 < len(FEW)
    found = by_model(study, {id: e.value for id, e in study.estimates("few").items()})
    assert found == pytest.approx({name: right(folder, bias, both) for name, bias in MODELS.items()})
    assert f"on few ({len(both)} of its 40 examples are among those that were judged)" in study.objectives["few"].text


def test_what_a_study_was_searched_by_is_compared_with_the_old_winner(
    study: Study, folder: Path, main: Callable[..., Any]
) -> None:
    argv = ["study", "objectives", "add", study.folder, "first", "--function", f"{folder / 'mine.py'}:first"]
    done = main(*argv, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    old, new = study.candidate(study.winners["best"]), found["chosen"]
    assert by_model(study, {old["id"]: 1, new["id"]: 2}) == {"plain.onnx": 1, "shy.onnx": 2}
    other = found["old_winner"]
    assert other["id"] == old["id"] and other["difference"] is None and other["ratio"] is None
    names = ["latency_ms", "size_bytes", "accuracy", "few", "macro_f1"]
    assert list(other["objectives"]) == ["first", *names]
    for name in names[:3]:
        assert other["objectives"][name] == {"chosen": new[name], "old_winner": old[name]}
    for name in names[3:]:
        assert other["objectives"][name] == {"chosen": new["values"][name], "old_winner": old["values"][name]}
    means = {who: found["estimates"][id]["value"] for who, id in (("chosen", new["id"]), ("old_winner", old["id"]))}
    assert other["objectives"]["first"] == means and means["chosen"] == pytest.approx(means["old_winner"] + 9, abs=1e-3)
    text = main(*argv).out
    line = next(line for line in text.splitlines() if line.startswith("against the old winner"))
    few, f1 = (f"{name} {new['values'][name]:.4g} instead of {old['values'][name]:.4g}" for name in ("few", "macro_f1"))
    assert few in line and f1 in line and "× its size" in line
