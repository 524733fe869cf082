"""A search over the models of a study file, on real digits, for all three runtimes.

It is killed on its way, gone on with, changed, chosen from.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import searches
import sqlalchemy as sa
from seatrial.devices.store import Store
from seatrial.exporter.run import verify
from seatrial.search.models.fidelity import TRUSTED
from seatrial.search.study import Study

TARGETS = ("onnxruntime", "openvino", "tflite")
MORE = """
finetune = {"epochs": 1}
targets = ["onnxruntime", "openvino", "tflite"]
precisions = ["fp32", "int8"]
search = {"evaluations": 2, "calibration": 50, "examples": 300}
"""
STUDY = searches.digits([0.5, 1.0], [4, 8]) + MORE
RUNS = (
    ("1", "timing .* deployments"),
    ("1", None),
    ("2", "confirming .* launch 2"),
    ("2", None),
    ("2", None),
)
"""Of one search: how many models, and when it says this it is ended by SIGKILL."""
WORK = ("capturing", "converting", "making", "proving", "timing", "confirming", "training", "the shared training",
        "inheriting", "building candidates")  # fmt: skip


@dataclass
class Ended(searches.Ended):
    """And what the store and the trainings held afterwards."""

    rows: dict[tuple[str, Any], str] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)


def rows(folder: Path) -> dict[tuple[str, Any], str]:
    """Every row of the store but claims, as text, by table and id."""
    if not (folder / "facts.sqlite").exists():
        return {}
    found = {}
    with closing(Store(folder / "facts.sqlite")) as store:
        tables = sa.MetaData()
        tables.reflect(store.engine)
        with store.engine.connect() as connection:
            for name in sorted(tables.tables.keys() - {"claims"}):
                for row in connection.execute(sa.select(tables.tables[name])).mappings():
                    found[name, row.get("id", repr(row))] = repr(dict(row))
    return found


def trainings(folder: Path) -> dict[str, float]:
    """When each training's result was written: the shared one, models', further ones."""
    place = folder / "work" / "training"
    every = (*place.glob("*/shared/*/result.json"), *place.glob("*/trained/*/result.json"))
    return {str(file.relative_to(place)): file.stat().st_mtime for file in every}


def search(file: Path, out: Path, *more: str, until: str | None = None) -> Ended:
    """The command as a user runs it, in a process of its own; killed after the first line that begins so."""
    child = searches.begin(file, out, *more, ranked=3)

    def hear(text: str) -> None:
        if until and re.match(until, text):
            os.kill(child.pid, signal.SIGKILL)

    return Ended(**vars(searches.follow(child, hear)), rows=rows(out), trained=trainings(out))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    needs("torch", "litert_torch", "onnxruntime", "openvino", "nncf", "ai_edge_quantizer", "sklearn")
    folder = tmp_path_factory.mktemp("explore")
    (folder / "study.py").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> list[Ended]:
    """`RUNS`: killed, gone on with, gone on with for one more model, killed, gone on with, and once more."""
    found = []
    for evaluations, until in RUNS:
        found.append(search(folder / "study.py", folder / "out", "--evaluations", evaluations, until=until))
        assert found[-1].code == (-signal.SIGKILL if until else 0), found[-1].error
    return found


@pytest.fixture(scope="module")
def study(runs: list[Ended], folder: Path) -> Study:
    return Study.read(folder / "out")


@pytest.fixture
def changed(study: Study, folder: Path, tmp_path: Path) -> Callable[..., tuple[Ended, Study]]:
    """`changed(text, *options)` runs the search with more in its file, in a copy of the finished folder."""

    def run(text: str, *options: str) -> tuple[Ended, Study]:
        out = Path(shutil.copytree(study.folder, tmp_path / "out"))
        (tmp_path / "study.py").write_text(STUDY + text)
        ended = search(tmp_path / "study.py", out, *options)
        return ended, Study.read(out)

    return run


def costs(study: Study, id: str) -> tuple[float, ...]:
    found = study.candidate(id)
    return (1 - found["accuracy"], found["latency_ms"])


def test_no_fact_is_lost_or_changed_by_a_kill(runs: list[Ended]) -> None:
    for before, after in itertools.pairwise(runs):
        assert before.rows.items() <= after.rows.items()
        assert before.trained.items() <= after.trained.items()
    assert runs[0].rows and runs[0].trained


def test_no_step_is_done_twice_but_the_one_that_was_cut(runs: list[Ended]) -> None:
    cut = [ended.lines[-1] for ended in runs if ended.code]
    steps = [step for ended in runs for step in ended.said("the shared training|training candidate|timing")]
    assert steps.count("the shared training") == 1 and len(steps) > 6
    assert [step for step in set(steps) if steps.count(step) != 1 + cut.count(step)] == []


def test_one_more_model_goes_on_from_what_is_there(runs: list[Ended]) -> None:
    models = [[text for (table, _), text in each.rows.items() if table == "models"] for each in runs]
    assert len(models[0]) == 0 < len(models[1]) < len(models[3])
    assert set(models[1]) < set(models[3])
    assert runs[1].said("packing best") and runs[2].said("model 2 of 2, for") and not runs[2].said("model 1 of 2, for")


def test_the_same_command_again_measures_and_trains_nothing(runs: list[Ended]) -> None:
    assert runs[-1].rows == runs[-2].rows and runs[-1].trained == runs[-2].trained
    assert not runs[-1].said(*WORK)


def test_every_model_has_all_its_deployments(study: Study) -> None:
    tried = {key for key, one in study.document["models"].items() if one["trained"] == "inherited"}
    assert len(tried) == 2 or study.document["trainings"]["of models"]
    for key, one in study.document["models"].items():
        assert one["status"] == "ok" and one["macs"] > 0 and one["parameters"] > 0
        found = [c for c in study.candidates if c["model"] == key]
        assert {(c["target"], c["precision"]) for c in found if c["status"] == "ok"} == {
            (t, p) for t in TARGETS for p in ("fp32", "int8")
        }
        for c in found:
            assert c["status"] == "ok", c["reason"]
            assert 0.2 < c["accuracy"] <= 1 and c["latency_ms"] > 0
            assert c["ran_precision"] == c["precision"] and c["values"].keys() >= {"accuracy", "latency_ms"}
            if c["precision"] == "fp32":
                assert c["accuracy"] == pytest.approx(one["accuracy"], abs=0.05) and c["sqnr_db"] >= 80


def test_nobody_surpasses_what_is_on_a_front(study: Study) -> None:
    """Of those that were timed again: a single launch puts nobody on a front in the end."""
    assert set(study.document["fronts"]) == set(TARGETS)
    for target, front in study.document["fronts"].items():
        assert front
        again = [c["id"] for c in study.candidates if c["target"] == target and c["launches"] > 1]
        assert set(front) <= set(again)
        for id in again:
            better = [a for a in again if all(x <= y for x, y in zip(costs(study, a), costs(study, id), strict=True))]
            surpassed = any(costs(study, a) != costs(study, id) for a in better)
            assert surpassed == (id not in front), (target, id)


def test_the_chosen_are_as_accurate_as_any_and_of_those_the_fastest(study: Study) -> None:
    """The first objective decides, among those that aren't proven worse by it the second."""
    assert set(study.winners) == {"best", *TARGETS}
    for target in TARGETS:
        chosen = study.candidate(study.winners[target])
        rivals = [study.candidate(id) for id in study.document["fronts"][target]]
        assert chosen["target"] == target and chosen["launches"] > 1
        most = max(c["accuracy"] for c in rivals)
        better = [c for c in rivals if c["accuracy"] == most and c["latency_low_ms"] and c["id"] != chosen["id"]]
        assert all(c["latency_ms"] >= chosen["latency_ms"] * 0.98 for c in better)
        assert chosen["accuracy"] > most - 0.1


@pytest.mark.parametrize("name", ["best", *TARGETS])
def test_the_bundles_verify_and_say_what_was_chosen(name: str, study: Study) -> None:
    assert verify(study.folder / name)["vectors"] > 0
    manifest = json.loads((study.folder / name / "manifest.json").read_text())
    chosen = study.candidate(study.winners[name])
    assert (manifest["target"], manifest["recipe"]["precision"]) == (chosen["target"], chosen["precision"])


def test_one_training_served_all_models_and_its_ranks_were_checked(study: Study) -> None:
    found = study.document["trainings"]
    assert (found["shared"], found["to check ranks"]) == (1, 3)
    (told,) = [note for note in study.document["notes"] if note.startswith("rank fidelity")]
    rho = float(re.findall(r"Spearman (-?[\d.]+)", told)[0])
    trained = {one["trained"] for one in study.document["models"].values()}
    assert ("inherited" in trained) == (rho >= TRUSTED)
    assert any(key.endswith("-tuned") for key in study.document["models"]) == (rho >= TRUSTED)


def test_accuracy_is_confirmed_on_what_nothing_was_chosen_by(study: Study) -> None:
    chosen = study.candidate(study.winners["best"])
    assert chosen["confirmed_accuracy"] == pytest.approx(chosen["accuracy"], abs=0.15)
    assert study.document["data"]["confirm"]["n"] == 300


def test_other_objectives_and_constraints_choose_anew_and_train_nothing(
    changed: Callable[..., tuple[Ended, Study]], study: Study, runs: list[Ended]
) -> None:
    accuracies = [max(c["accuracy"] for c in study.candidates if c["target"] == t) for t in TARGETS]
    ended, found = changed(
        'objectives = ["latency_ms", "size_bytes", {"name": "f1", "measure": "macro_f1"}]\n'
        f'constraints = ["accuracy >= {min(accuracies) - 5e-5:.4f}"]\n'
    )
    assert ended.code == 0, ended.error
    assert ended.trained == runs[-1].trained
    assert not ended.said("training", "the shared training", "inheriting", "capturing", "converting")
    models = [{key: text for key, text in each.items() if key[0] == "models"} for each in (ended.rows, runs[-1].rows)]
    assert models[0] == models[1]
    assert [each["name"] for each in found.document["goals"]["objectives"]] == ["latency_ms", "size_bytes", "f1"]
    assert "added later" not in (found.folder / "report.html").read_text(), "the file says it"
    for target in TARGETS:
        able = [c for c in found.candidates if c["target"] == target and c["accuracy"] > min(accuracies) - 1e-4]
        chosen = found.candidate(found.winners[target])
        assert chosen in able and chosen["latency_ms"] <= 1.1 * min(c["latency_ms"] for c in able)
        assert verify(found.folder / target)["vectors"] > 0
        for id in found.document["fronts"][target]:
            assert found.candidate(id) in able


def test_a_constraint_out_of_reach_names_the_nearest_and_loses_nothing(
    changed: Callable[..., tuple[Ended, Study]], runs: list[Ended], study: Study
) -> None:
    ended, found = changed('constraints = ["latency_ms <= 0.0001"]\n')
    assert ended.code == 1 and "Traceback" not in ended.error
    assert "latency_ms <= 0.0001" in ended.error and "nearest" in ended.error
    assert ended.rows == runs[-1].rows and ended.trained == runs[-1].trained
    assert found.document == study.document and verify(found.folder / "best")["vectors"] > 0


@pytest.fixture
def moved(study: Study, tmp_path: Path) -> Path:
    """A copy of the finished study in another place, to be changed."""
    return Path(shutil.copytree(study.folder, tmp_path / "elsewhere"))


@pytest.fixture
def missed(moved: Path, main: Any, tmp_path: Path) -> dict[str, Any]:
    """What the command says that adds an objective of this name to the copy: to take a 1 for something else is dear."""
    labels = list("0123456789")
    lines = [",".join(["", *labels])]
    for i, row in enumerate(labels):
        lines.append(",".join([row, *("0" if i == j else "50" if i == 1 else "1" for j in range(10))]))
    (tmp_path / "costs.csv").write_text("\n".join(lines) + "\n")
    done = main("study", "objectives", "add", moved, "missed", "--cost", tmp_path / "costs.csv", "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_a_cost_matrix_later_retrains_nothing(moved: Path, missed: dict[str, Any], runs: list[Ended]) -> None:
    found = missed
    assert (found["retrainings"], found["conversions"], found["replays"], found["launches"]) == (0, 0, 0, 0)
    study = Study.read(moved)
    assert set(found["estimates"]) == {c["id"] for c in study.candidates if c["status"] == "ok"}
    assert found["estimates"][found["chosen"]["id"]]["value"] == min(e["value"] for e in found["estimates"].values())
    assert trainings(moved) == runs[-1].trained


def test_a_search_that_goes_on_reports_the_objectives_that_were_added(
    moved: Path, missed: dict[str, Any], folder: Path, main: Any, tmp_path: Path
) -> None:
    assert "missed" not in (moved / "report.html").read_text()
    assert search(folder / "study.py", moved).code == 0
    page = (moved / "report.html").read_text()
    assert "Objectives that were added later" in page and "missed" in page
    assert main("study", "report", moved, "-o", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").read_text() == page


def test_other_objectives_train_nothing_further_but_new_models_and_a_wish_do(
    moved: Path, study: Study, folder: Path
) -> None:
    key = study.candidate(study.winners["best"])["model"].removesuffix("-tuned")
    if study.document["models"][key]["trained"] != "inherited":
        pytest.skip("inherited weights may not choose on this machine")
    kept = {name: one for name, one in study.document["models"].items() if not name.endswith("-tuned")}

    def untuned(known: dict[str, Any], *more: str) -> tuple[Ended, dict[str, Any]]:
        """As where other objectives chose anew: nobody has been trained further, and these were known before."""
        with sqlite3.connect(moved / "facts.sqlite") as raw:
            raw.execute("delete from models where model like '%-tuned'")
        (moved / "study.json").write_text(json.dumps({**study.document, "models": known}))
        ended = search(folder / "study.py", moved, *more)
        assert ended.code == 0, ended.error
        return ended, Study.read(moved).document

    ended, document = untuned(kept)
    assert not ended.said("training", "the shared training", "inheriting", "capturing", "converting", "making")
    assert set(document["models"]) == set(kept)
    wish = f"the chosen {key[:8]} has inherited weights; the same command with --tune trains them further"
    assert [note for note in document["notes"] if note.endswith(wish)]
    for known, more in ((kept, ("--tune",)), ({key: kept[key]}, ())):
        ended, document = untuned(known, *more)
        assert ended.said(f"training the chosen {key[:8]}") and f"{key}-tuned" in document["models"]
        assert not [note for note in document["notes"] if note.endswith(wish)]


def test_new_examples_later_retrain_nothing(moved: Path, runs: list[Ended], main: Any, tmp_path: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    image = (digits.images[1700:] / 16)[:, None].astype(np.float32)
    np.savez(tmp_path / "failed.npz", image=image, labels=digits.target[1700:])
    done = main("study", "objectives", "add", moved, "failures", "--data", tmp_path / "failed.npz", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["retrainings"], found["conversions"], found["launches"]) == (0, 0, 0) and found["replays"] > 0
    assert all(0.1 < e["value"] <= 1 and e["n"] == 97 for e in found["estimates"].values())
    assert trainings(moved) == runs[-1].trained


def test_select_takes_any_model_that_is_stored(study: Study, main: Any, tmp_path: Path) -> None:
    fastest = min((c for c in study.candidates if c["latency_ms"]), key=lambda c: c["latency_ms"])
    done = main("study", "select", study.folder, "--minimize", "latency_ms", "-o", tmp_path / "bundle", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["id"] == fastest["id"]
    assert verify(tmp_path / "bundle")["vectors"] > 0
    done = main("study", "show", study.folder)
    assert done.code == 0 and all(study.winners[t] and t in done.out for t in TARGETS)
    assert "trainings: 1 shared" in done.out


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('objectives = ["speed"]\n', (), ("'speed'", "latency_ms")),
        ('constraints = ["latency_ms >= 5"]\n', (), ("latency_ms >= 5", "bounds the worse side")),
        ('constraints = ["speed <= 5"]\n', (), ("no objective 'speed'",)),
        ('space = {"precision": ["fp32"]}\n', (), ("precision",)),
        ('precisions = ["int3"]\n', (), ("int3",)),
        ('targets = ["abacus"]\n', (), ("abacus",)),
        ('search = {"evaluation": 3}\n', (), ("evaluation",)),
        ("", ("--target", "tflite"), ("--target", "say it in the study file: targets")),
        ("", ("--calibration", "."), ("--calibration", "load_data()")),
        ("", ("--sampler", "oracle"), ("oracle", "model")),
        ('del family, shared\nspace = {"a": [1]}\nbuild = get_args = load_data\n', ("--tune",), ("--tune", "inherits")),
        ('weights = "own"\n', ("--tune",), ("--tune", "inherits")),
    ],
)
def test_a_bad_file_or_option_is_one_clear_error(
    text: str, options: tuple[str, ...], words: tuple[str, ...], main: Any, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "study.py").write_text(STUDY + text)
    main("search", tmp_path / "study.py", "-o", tmp_path / "out", *options).fails(2, *words)
    assert not (tmp_path / "out").exists()  # nothing was begun


def test_options_of_a_study_file_are_refused_for_a_model(torch_file: Path, main: Any, tmp_path: Path) -> None:
    for option in (("--evaluations", "3"), ("--sampler", "random"), ("--minutes", "1"), ("--store", "sqlite://")):
        main("search", torch_file, "-o", tmp_path / "out", *option).fails(2, option[0], "study file")


def test_another_family_is_another_search(study: Study, runs: list[Ended], main: Any, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY.replace('"head": 32', '"head": 16'))
    main("search", tmp_path / "study.py", "-o", study.folder).fails(2, "other arguments")
    assert rows(study.folder) == runs[-1].rows
