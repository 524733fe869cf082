"""The decision rule in the graph: cost matrices, the temperature, and graphs that decide as numpy does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core import bundle as format
from seatrial.core import samples
from seatrial.core.bundle import Bundle
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.core.ids import file_sha256
from seatrial.exporter.api import Exported, export
from seatrial.exporter.data import Data
from seatrial.exporter.decision import COST, DECISION, Costs, Rule, fitted, read_costs
from seatrial.exporter.decision.decide import _agreement
from seatrial.exporter.run import verify
from seatrial.exporter.sources.common import split

LABELS = ["ant", "bee", "cat", "dog", "eel", "fox"]
COSTS = "true,fox,ant,bee,cat,dog,eel,ask\n" + "\n".join(
    f"{name},{','.join(str((row + 1) * (name != other)) for other in ['fox', *LABELS[:-1]])},0.9"
    for row, name in enumerate(LABELS)
)
"""Columns in another order than the model's classes, and one decision more."""


def expected(rule: Rule, scores: np.ndarray) -> np.ndarray:
    """The rule written out, one decision at a time."""
    out = np.zeros((len(scores), len(rule.costs.decisions)))
    for i, row in enumerate(scores.astype(np.float64)):
        if rule.kind == "probabilities":
            row = np.log(np.maximum(row, 1e-12))
        powers = np.exp(row / rule.temperature - (row / rule.temperature).max())
        for d in range(out.shape[1]):
            out[i, d] = sum(p / powers.sum() * costs[d] for p, costs in zip(powers, rule.costs.values, strict=True))
    return out


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    (tmp_path / "costs.csv").write_text(COSTS)
    return tmp_path / "costs.csv"


def test_names_are_matched_whatever_their_order(costs: Path) -> None:
    found = read_costs(costs, LABELS)
    assert (found.classes, found.decisions[0], found.decisions[-1]) == (LABELS, "fox", "ask")
    assert found.of_class == [1, 2, 3, 4, 5, 0]
    for row, name in enumerate(LABELS):
        assert [found.values[row][d] for d in (found.decisions.index(name), 6)] == [0, 0.9]
        assert found.values[row][found.decisions.index("ant" if row else "bee")] == row + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("\ncat,", "\ncow,"), ["no such class: 'cow'", "no row for 'cat'"]),
        (lambda text: text.replace("bee,cat", "bee,cow", 1), ["no column for 'cat'"]),
        (lambda text: text + "\nant,1,1,1,1,1,1,1", ["'ant' stands twice"]),
        (lambda text: text.replace("0.9", "dear", 1), ["the row ant holds 'dear'"]),
        (lambda text: text.replace("0.9", "nan", 1), ["the row ant holds 'nan'"]),
        (lambda text: text + ",5", ["the row fox has 8 costs, 7 decisions"]),
        (lambda text: "", ["it holds no costs of two decisions"]),
    ],
)
def test_a_wrong_matrix_is_one_clear_error(costs: Path, change: Callable[[str], str], words: list[str]) -> None:
    costs.write_text(change(COSTS))
    with pytest.raises(UsageError) as error:
        read_costs(costs, LABELS)
    for word in words:
        assert word in error.value.found


def test_decisions_may_be_others_than_the_classes(costs: Path) -> None:
    costs.write_text("true,treat,wait\nwell,1,0\nill,0,9\n")
    found = read_costs(costs, ["ill", "well"])
    assert (found.decisions, found.values, found.of_class) == (["treat", "wait"], [[0, 9], [1, 0]], None)
    with pytest.raises(UsageError, match="declares no classes"):
        read_costs(costs, None)


def labelled(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Logits `temperature` times too far apart for their labels."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, 3)) * 2
    powers = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return temperature * logits, [int(rng.choice(3, p=p)) for p in powers]


MATRIX = Costs(["a", "b", "c"], ["a", "b", "c"], [[0, 1, 1], [1, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_badly_scaled_logits_is_found(temperature: float) -> None:
    scores, labels = labelled(4000, temperature)
    rule = fitted(MATRIX, {"evaluate": (scores, labels)}, scores)
    assert rule.temperature == pytest.approx(temperature, rel=0.1)
    assert rule.kind == "logits"
    right = np.exp(scores / temperature) / np.exp(scores / temperature).sum(-1, keepdims=True)
    same = fitted(MATRIX, {"evaluate": (softmax(scores), labels)}, softmax(scores))
    assert same.kind == "probabilities"
    assert same.probabilities(softmax(scores)) == pytest.approx(rule.probabilities(scores), abs=1e-3)
    assert rule.probabilities(scores) == pytest.approx(right, abs=0.05)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def test_without_enough_labels_or_errors_the_temperature_is_one_and_says_why() -> None:
    scores, labels = labelled(40, 3.0)
    few = fitted(MATRIX, {"evaluate": (scores, labels)}, scores)
    assert (few.temperature, few.fitted) == (1.0, "T = 1: 40 labelled examples are too few, 50 are needed")
    scores, _ = labelled(80, 3.0)
    perfect = fitted(MATRIX, {"evaluate": (scores, [int(i) for i in scores.argmax(-1)])}, scores)
    assert perfect.temperature == 1.0
    assert "no error among 80" in perfect.fitted


def test_a_graph_that_decides_otherwise_is_found_and_a_tie_is_none() -> None:
    rule = Rule(MATRIX)
    scores = np.array([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

    def graph(decisions: list[int], error: float = 0.0) -> list[Any]:
        cost = rule.expected(scores) + error
        return [
            {"y": s[None], COST: c[None], DECISION: np.array([d])}
            for s, c, d in zip(scores, cost, decisions, strict=True)
        ]

    assert _agreement(rule, graph([0, 0]), "y", 80.0)[1] == []
    assert _agreement(rule, graph([0, 2]), "y", 80.0)[1] == [], "all three cost the same there"
    assert _agreement(rule, graph([1, 0]), "y", 80.0)[1] == ["1 of 2 decisions are not numpy's"]
    assert "dB from numpy's, needed 80" in _agreement(rule, graph([0, 0], 0.01), "y", 80.0)[1][0]


@pytest.mark.parametrize(
    ("n", "labelled", "out"),
    [(9, True, 9), (20, True, 4), (200, False, 40), (249, True, 49), (250, True, 50), (500, True, 100),
     (500, False, 38), (5000, True, 100), (5000, False, 40)],
)  # fmt: skip
def test_of_calibration_data_some_are_held_out_evenly_and_enough_labelled_ones(
    n: int, labelled: bool, out: int
) -> None:
    feeds = [{"x": np.array([i])} for i in range(n)]
    rest, held = split(Data("some", "1", feeds, list(range(n)) if labelled else None))
    places = [int(feed["x"][0]) for feed in held.feeds]
    assert len(held) == out and held.labels == (places if labelled else None)
    assert out == n or sorted([*places, *(int(feed["x"][0]) for feed in rest.feeds)]) == list(range(n))
    assert {place * 4 // n for place in places} == {0, 1, 2, 3}, "of data that are sorted by class they hold all"


def test_the_temperature_is_fitted_to_labelled_calibration_data_that_calibrated_nothing(
    tmp_path: Path, costs: Path, classifier: Callable[[Path], list[str]], needs: Callable[..., None]
) -> None:
    needs("torch", "onnxruntime")
    classifier(tmp_path)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((250, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "labelled.npz", image=images, labels=rng.integers(0, 6, 250))
    made = export(
        tmp_path / "classifier.py",
        "onnxruntime",
        precision="int8",
        calibration=tmp_path / "labelled.npz",
        cost=costs,
        output=tmp_path / "out",
    )[0]
    decision = made.bundle.manifest["decision"]
    assert decision["fitted"] == "T fitted to 50 labelled examples of 'held_out', by negative log-likelihood"
    assert decision["temperature"] != 1.0


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, classifier: Callable[[Path], list[str]], needs: Callable[..., None]
) -> list[Exported]:
    """The classifier with labelled data and a cost matrix, for all runtimes in int8: their graphs are the richer."""
    needs("torch", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "ai_edge_quantizer", "litert_torch")
    folder = tmp_path_factory.mktemp("decision")
    classifier(folder)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((60, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "evaluate.npz", image=images, labels=rng.integers(0, 6, 60))
    (folder / "costs.csv").write_text(COSTS)
    return export(
        folder / "classifier.py",
        "onnxruntime,openvino,tflite",
        precision="int8",
        calibration=folder / "calibration.npz",
        evaluate=folder / "evaluate.npz",
        cost=folder / "costs.csv",
        output=folder / "out",
        max_drop=1.0,
    )


def test_every_runtime_decides_as_the_rule_written_out(exported: list[Exported]) -> None:
    assert [each.bundle.target for each in exported] == ["onnxruntime", "openvino", "tflite"]
    for each in exported:
        bundle = each.bundle
        rule = Rule(read_rule(bundle), bundle.manifest["decision"]["temperature"])
        assert rule.temperature != 1.0
        assert "60 labelled examples of 'evaluate'" in bundle.manifest["decision"]["fitted"]
        for feed in samples.load(bundle.golden[1]):
            want = expected(rule, feed[bundle.manifest["classes"]])
            assert feed[COST] == pytest.approx(want, rel=1e-4, abs=1e-5)
            assert feed[DECISION].tolist() == want.argmin(-1).tolist()
            assert feed[DECISION].dtype == np.int64


def read_rule(bundle: Bundle) -> Costs:
    data = bundle.manifest["decision"]
    return Costs(data["classes"], data["decisions"], data["values"])


def test_bundles_stand_alone_with_the_new_outputs(exported: list[Exported]) -> None:
    for each in exported:
        path = each.bundle.path
        done = subprocess.run([sys.executable, "-P", path / "selftest.py"], capture_output=True, text=True, cwd=path)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs = [(spec.name, list(spec.shape)) for spec in each.bundle.outputs]
        assert outputs[1:] == [(COST, [1, 7]), (DECISION, [1])]
        golden = samples.load(each.bundle.golden[1])
        assert all({COST, DECISION} < set(feed) for feed in golden)
        assert "Decision rule in the graph" in (path / "report.md").read_text()


def test_a_changed_decision_fails_the_self_test_and_verify(exported: list[Exported], tmp_path: Path) -> None:
    path = Path(shutil.copytree(exported[0].bundle.path, tmp_path / "bundle"))
    golden = samples.load(path / "golden/outputs.npz")
    golden[0][DECISION] = golden[0][DECISION] + 1
    samples.save(path / "golden/outputs.npz", golden)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["golden/outputs.npz"]["sha256"] = file_sha256(path / "golden/outputs.npz")
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / format.SEAL).write_text(format.seal(path / "manifest.json"))
    done = subprocess.run([sys.executable, "-P", path / "selftest.py"], capture_output=True, text=True, cwd=path)
    assert (done.returncode, "decision: integers differ" in done.stdout) == (1, True)
    with pytest.raises(CheckFailed, match="decision"):
        verify(path)
