"""A pool of models that are there already, on labelled data; then new pictures and other devices, after the search."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seatrial.core.errors import NothingMeasured, UsageError
from seatrial.devices.facts import cores_given
from seatrial.devices.store import Store
from seatrial.search import race
from seatrial.search.explore import explore
from seatrial.search.study import Study

underway = importlib.import_module("seatrial.search.underway")

CLASSES = ["ant", "bee", "cat", "dog"]
STUDY = """
import numpy as np

space = {"source": ["good.onnx", "worse.onnx", "small.onnx", "five.onnx"]}
targets = ["onnxruntime"]
precisions = ["fp32", "int8"]
search = {"evaluations": 4, "calibration": 20, "examples": 60}


def load_data(part, candidate):
    held = np.load(__file__.replace("study.py", part + ".npz"))
    found = held["pictures"] / 255
    if candidate["source"] == "small.onnx":
        found = found.reshape(-1, 3, 4, 2, 4, 2).mean((3, 5))
    return found, held["labels"]


def get_labels():
    return CLASSES


def get_preprocess():
    return {"size": 8, "crop": "none"}
""".replace("CLASSES", repr(CLASSES))
TEMPLATES = np.random.default_rng(0).standard_normal((4, 3, 8, 8))


def pictures(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy templates as pixels (n, 3, 8, 8), and which (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    grey = 128 + 12 * TEMPLATES[labels] + 60 * rng.standard_normal((n, 3, 8, 8))
    return grey.round().clip(0, 255).astype(np.uint8), labels


def small(pixels: np.ndarray) -> np.ndarray:
    """In half the size: (n, 3, 4, 4)."""
    return pixels.reshape(-1, 3, 4, 2, 4, 2).mean((3, 5))


def weights(noise: float, classes: int = 4, size: int = 8) -> np.ndarray:
    """Of a linear classifier (3 size², classes)."""
    templates = TEMPLATES if size == 8 else small(TEMPLATES)
    rows = np.stack([templates[i % 4] for i in range(classes)]).reshape(classes, -1)
    rows = rows + noise * np.random.default_rng(1).standard_normal(rows.shape)
    return (rows - rows.mean(1, keepdims=True)).T


def write_model(path: Path, name: str, noise: float, classes: int = 4, size: int = 8) -> None:
    """A linear classifier of pictures (1, 3, size, size) in 0 to 1."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    matrix = weights(noise, classes, size).astype(np.float32)
    nodes = [helper.make_node("Flatten", [name], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]
    shapes = {name: [1, 3, size, size], "y": [1, classes]}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    held = [numpy_helper.from_array(a, n) for n, a in (("w", matrix), ("b", np.zeros(classes, np.float32)))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def accuracy(source: str, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Of a model of the pool over pixels (n, 3, 8, 8), by numpy."""
    size = SIZES[source]
    given = (pixels if size == 8 else small(pixels)).reshape(len(pixels), -1) / 255
    return float(((given @ weights(NOISES[source], size=size)).argmax(1) == labels).mean())


NOISES = {"good.onnx": 0.0, "worse.onnx": 1.5, "small.onnx": 0.5}
SIZES = {"good.onnx": 8, "worse.onnx": 8, "small.onnx": 4}


def quick(patch: pytest.MonkeyPatch) -> None:
    """The protocol's own rounds and launches would take minutes; nothing here depends on who is the faster."""
    patch.setattr(underway, "Plan", functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02))
    patch.setattr(underway, "CONFIRM_LAUNCHES", 2)
    patch.setattr(race, "MOST", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """A pool whose models call their input differently; one has other classes than the study."""
    needs("onnxruntime", "onnx")
    folder = tmp_path_factory.mktemp("pool")
    (folder / "study.py").write_text(STUDY)
    for name, called in (("good.onnx", "x"), ("worse.onnx", "image"), ("small.onnx", "x")):
        write_model(folder / name, called, NOISES[name], size=SIZES[name])
    write_model(folder / "five.onnx", "x", 0.0, 5)
    for seed, (part, n) in enumerate((("train", 60), ("valid", 60), ("test", 60))):
        pixels, labels = pictures(n, seed)
        np.savez(folder / f"{part}.npz", pictures=pixels, labels=labels)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """The study, never touched."""
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        explore(folder / "study.py", output=folder / "out")
    return folder / "out"


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Study:
    """A copy of the study, to be added to."""
    return Study.read(shutil.copytree(finished, tmp_path / "study"))


def source(study: Study, candidate: dict[str, Any]) -> str:
    return str(study.document["models"][candidate["model"]]["values"]["source"])


def test_each_model_of_a_pool_is_judged_on_the_study_s_data(study: Study, folder: Path) -> None:
    held = np.load(folder / "valid.npz")
    found = {source(study, c): c["accuracy"] for c in study.candidates if c["precision"] == "fp32"}
    expected = {name: accuracy(name, held["pictures"], held["labels"]) for name in NOISES}
    assert found == pytest.approx(expected)
    assert max(expected["worse.onnx"], expected["small.onnx"]) + 0.1 < expected["good.onnx"] == 0.95
    assert {c["precision"] for c in study.candidates if c["status"] == "ok"} == {"fp32", "int8"}, "it was calibrated"
    assert source(study, study.candidate(study.winners["best"])) == "good.onnx"
    assert study.candidate(study.winners["best"])["confirmed_accuracy"] > 0.5
    manifest = json.loads((study.folder / "best" / "manifest.json").read_text())
    assert manifest["preprocess"]["size"] == 8


def test_a_model_of_other_classes_fails_for_itself_alone(study: Study) -> None:
    (failed,) = [one for one in study.document["models"].values() if one["status"] != "ok"]
    assert failed["values"]["source"] == "five.onnx"
    assert "4 names" in failed["reason"] and "y has 5" in failed["reason"]


@pytest.fixture
def failed(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Pictures in a folder for each class, with their pixels (n, 3, 8, 8) and labels in the order of their names."""
    from PIL import Image

    pixels, labels = pictures(40, 9)
    order = np.argsort(labels, kind="stable")
    for i, (picture, label) in enumerate(zip(pixels[order], labels[order], strict=True)):
        place = tmp_path / "failed" / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{i:02d}.png")
    return tmp_path / "failed", pixels[order], labels[order]


def values(study: Study, estimates: dict[str, Any]) -> dict[str, float]:
    """Of each model in fp32."""
    rows = [c for c in study.candidates if c["precision"] == "fp32" and c["id"] in estimates]
    return {source(study, c): estimates[c["id"]].value for c in rows}


def test_stored_artifacts_are_judged_by_pictures_of_failed_examples(
    study: Study, failed: tuple[Path, np.ndarray, np.ndarray], main: Any
) -> None:
    folder, pixels, labels = failed
    added = study.add_objective("failures", data=folder)
    expected = {name: accuracy(name, pixels, labels) for name in ("good.onnx", "worse.onnx")}
    assert values(study, added.estimates) == pytest.approx(expected)
    assert added.replays == 4 and (added.retrainings, added.conversions, added.launches) == (0, 0, 0)
    assert added.failed and all("[1, 3, 8, 8]" in why for why in added.failed.values()), "small takes another size"
    assert source(study, study.select(maximize="failures")) == "good.onnx"
    again = main("study", "objectives", "add", study.folder, "failures", "--data", folder, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["replays"] == 0


def test_where_pictures_can_t_become_inputs_arrays_do(
    study: Study, failed: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder, pixels, labels = failed
    for file in study.folder.glob("work/models/*/program/program.json"):  # as a search without get_preprocess() left it
        file.write_text(json.dumps({**json.loads(file.read_text()), "preprocess": None}))
    with pytest.raises(UsageError, match=r"no get_preprocess\(\)") as error:
        study.add_objective("failures", data=folder)
    assert "an .npz of ready inputs: inputs (n, 3, " in error.value.todo and "labels (n,)" in error.value.todo
    assert "failures" not in study.objectives
    np.savez(tmp_path / "failed.npz", inputs=(pixels / 255).astype(np.float32), labels=labels)
    added = study.add_objective("failures", data=tmp_path / "failed.npz")
    expected = {name: accuracy(name, pixels, labels) for name in ("good.onnx", "worse.onnx")}
    assert values(study, added.estimates) == pytest.approx(expected)


def measured(study: Study, stage: str) -> list[dict[str, Any]]:
    with closing(Store(study.folder / "facts.sqlite")) as store:
        rows = store.find()
    return [row for row in rows if row["session"].partition("@")[0].startswith(f"{study.document['key']}-{stage}")]


def test_only_times_are_measured_on_a_device(
    study: Study, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    said: list[str] = []
    before = measured(study, "")
    added = study.add_objective("there", device="one-core", say=said.append)
    rows = measured(study, "on-")
    assert added.launches == len({row["launch"] for row in rows}) > 0 == added.replays == added.conversions
    assert all(line.startswith(("timing on one-core, launch", "scoring")) for line in said)
    assert measured(study, "")[: len(before)] == before and len(measured(study, "")) == len(before) + len(rows)
    for row in rows:
        assert row["facts"]["arm"]["limits"] == {"cores": cores_given()[:1]}
        assert row["facts"]["arm"]["settings"]["threads"] == 1
    able = {c["id"]: c for c in study.candidates if c["status"] == "ok"}
    assert set(added.estimates) | set(added.stands_for) == set(able)
    assert not set(added.estimates) & set(added.stands_for)
    assert {able[id]["settings"]["threads"] for id in added.estimates} == {1}
    assert all(able[id]["settings"]["threads"] > 1 for id in added.stands_for)
    assert bool(added.stands_for) == (len(cores_given()) > 1), "the chosen are tried with all cores, too"
    best = study.select(minimize="there")["id"]
    assert added.estimates[best].value == min(e.value for e in added.estimates.values()) > 0
    done = main("study", "objectives", "add", study.folder, "there", "--device", "one-core")
    assert done.code == 0, done.err
    assert "launches timed: 0" in done.out and "latency ms on the device one-core" in done.out
    done = main("study", "report", study.folder)
    assert done.code == 0, done.err
    assert "latency ms on the device one-core" in (study.folder / "report.html").read_text()
    memory = study.add_objective("memory", device="one-core", measure="peak_memory_bytes")
    assert memory.launches == 0 and set(memory.estimates) == set(added.estimates)
    assert all(e.value > 1e7 for e in memory.estimates.values())
    (tmp_path / "tiny.toml").write_text('description = "too small for anything"\nmemory_mb = 1\n')
    with pytest.raises(NothingMeasured, match="timing on tiny"):
        study.add_objective("no_room", device=str(tmp_path / "tiny.toml"))
    assert "no_room" not in study.objectives


def test_models_that_come_after_an_objective_are_known_by_it(
    folder: Path,
    failed: tuple[Path, np.ndarray, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick(monkeypatch)
    pixels, labels = failed[1:]
    first = explore(folder / "study.py", output=tmp_path / "out", effort={"evaluations": 2})
    first.add_objective("failures", data=failed[0])
    first.add_objective("there", device="one-core")
    shutil.rmtree(failed[0])
    said: list[str] = []
    goals = ["failures", "there"]
    study = explore(
        folder / "study.py", output=tmp_path / "out", effort={"evaluations": 4}, objectives=goals, say=said.append
    )
    expected = {name: accuracy(name, pixels, labels) for name in ("good.onnx", "worse.onnx")}
    assert values(study, study.estimates("failures")) == pytest.approx(expected)
    assert set(values(study, study.estimates("there"))) == set(NOISES)
    chosen = study.candidate(study.winners["best"])
    assert chosen["values"].keys() == set(goals), "whoever is chosen is known by both"
    refused = [line for line in said if line.startswith("not known by failures")]
    assert len(refused) == 2 and all("[1, 3, 8, 8]" in line for line in refused), "small takes another size"
    first_arms = [row["facts"]["arm"] for row in measured(study, "on-") if row["arm"] == race.REFERENCE]
    assert len(first_arms) > 1 and len({arm["artifact_id"] for arm in first_arms}) == 1, "all against the same one"
    again: list[str] = []
    explore(folder / "study.py", output=tmp_path / "out", effort={"evaluations": 4}, objectives=goals, say=again.append)
    assert not [line for line in again if line.startswith(("replaying", "timing on"))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "raspberry"}, ["raspberry", "one-core"]),
        ({"device": "one-core", "measure": "accuracy"}, ["one-core", "answers are the same", "latency_p95_ms"]),
        ({"device": "one-core", "slice": "class=bee"}, ["one-core", "answers are the same"]),
        ({"measure": "peak_memory_bytes"}, ["every study has it", "--device"]),
    ],
)
def test_what_is_not_measured_on_a_device_is_said(study: Study, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        study.add_objective("new", **options)
    for word in words:
        assert word in str(error.value)
    assert "new" not in study.objectives


def test_times_of_two_machines_do_not_meet(study: Study) -> None:
    study.document["host"]["cpu"] = "Another CPU"
    with pytest.raises(UsageError, match="Another CPU"):
        study.add_objective("there", device="one-core")
