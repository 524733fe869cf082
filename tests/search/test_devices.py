"""A search on several devices: profiles that restrict this machine, each with a front and a chosen bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from searches import Ended, begin, follow, write_model
from seatrial.core.bundle import Bundle
from seatrial.devices.facts import cores_given
from seatrial.devices.store import Store
from seatrial.search.study import Study

HERE, ONE = ["onnxruntime", "openvino"], ["onnxruntime@one-core", "openvino@one-core"]
POOL = """
space = {"source": ["small.onnx", "large.onnx"]}
targets = ["onnxruntime", "openvino"]
precisions = ["fp32"]
devices = ["local", "one-core", "own/tight.toml"]
objectives = ["latency_ms", "size_bytes"]
search = {"threads": 2, "evaluations": 2}
"""
TIGHT = 'description = "hardly any memory"\nthreads = 1\nmemory_mb = 4\n'


def written(folder: Path, devices: str = "") -> Path:
    (folder / "own").mkdir()
    (folder / "own" / "tight.toml").write_text(TIGHT)
    for name, hidden in (("small", 16), ("large", 400)):
        write_model(folder / f"{name}.onnx", hidden)
    (folder / "study.py").write_text(POOL + devices)
    return folder / "study.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Study:
    needs("onnxruntime", "openvino")
    if len(cores_given()) < 2:
        pytest.skip("one core has no room for less")
    folder = tmp_path_factory.mktemp("devices")
    ended: Ended = follow(begin(written(folder), folder / "out"))
    assert ended.code == 0, ended.error + "\n".join(ended.lines)
    assert len(ended.said("proving .* fp32 × 1 on one-core")) == 4, "what it answers is proven once for all devices"
    assert not ended.said("proving .* on tight$")
    return Study.read(folder / "out")


def test_each_target_has_a_front_and_a_bundle_on_each_device(study: Study) -> None:
    chosen = study.document["chosen"]["per_target"]
    assert set(study.document["fronts"]) == set(chosen) == {*HERE, *ONE}, "on the third device nothing can be opened"
    for place, front in study.document["fronts"].items():
        target, _, device = place.partition("@")
        rows = [study.candidate(id) for id in [*front, study.winners[place]]]
        assert {(row["target"], row["device"]) for row in rows} == {(target, device or "local")}
        bundle = Bundle.read(study.folder / chosen[place]["bundle"])
        assert (bundle.target, bundle.manifest["settings"]["threads"]) == (target, rows[-1]["settings"]["threads"])
        assert not device or rows[-1]["settings"]["threads"] == 1
        measured = json.loads((bundle.path / "measurements.json").read_text())
        assert measured["device"]["name"] == (device or "local")
    assert study.candidate(study.winners["best"])["device"] == "local"


def test_each_is_timed_as_its_device_restricts_it(study: Study) -> None:
    devices = {c["id"]: c["device"] for c in study.candidates}
    with closing(Store(study.folder / "facts.sqlite")) as store:
        rows = [row for row in store.find() if row["arm"] in devices]
    limits = {"local": {}, "one-core": {"cores": cores_given()[:1]}, "tight": {"memory_bytes": 4 << 20}}
    assert {devices[row["arm"]] for row in rows} == set(limits)
    for row in rows:
        assert row["facts"]["arm"]["limits"] == limits[devices[row["arm"]]]
    failed = {c["device"] for c in study.candidates if c["status"] != "ok"}
    assert failed == {"tight"}
    assert any("nothing was chosen" in note and "MemoryError" in note for note in study.document["notes"])


def test_one_is_selected_by_its_device(study: Study, main: Any) -> None:
    for name, devices in (
        ("@one-core", {"one-core"}),
        ("openvino@local", {"local"}),
        ("openvino", {*["local", "one-core"]}),
    ):
        found = study.select(targets=[name])
        assert found["device"] in devices and found["target"] in (name.partition("@")[0] or found["target"])
    done = main("study", "select", study.folder, "--target", "@one-core")
    assert done.code == 0 and "@one-core fp32" in done.out, done.err
    done = main("study", "select", study.folder, "--target", "@raspberry")
    assert done.code == 2 and "openvino@one-core" in done.err


def test_they_are_shown_apart(study: Study, main: Any, tmp_path: Path) -> None:
    done = main("study", "show", study.folder)
    assert done.code == 0, done.err
    for place in (*HERE, *ONE):
        assert f"\n{place}" in f"\n{done.out}", done.out
    page = (study.folder / "report.html").read_text()
    assert "OpenVINO on one-core" in page
    done = main("study", "export", study.folder, "--csv", tmp_path / "all.csv")
    assert done.code == 0 and "one-core" in (tmp_path / "all.csv").read_text()


def test_an_objective_on_one_device_is_known_of_deployments_on_others(study: Study, main: Any, tmp_path: Path) -> None:
    """An artifact is timed there once for all of them."""
    out = shutil.copytree(study.folder, tmp_path / "out")
    done = main("study", "objectives", "add", out, "there", "--device", "one-core")
    assert done.code == 0, done.err
    ended = follow(begin(study.folder.parent / "study.py", out, "--objective", "there,size_bytes"))
    assert ended.code == 0, ended.error + "\n".join(ended.lines)
    assert set(Study.read(out).document["fronts"]) == {*HERE, *ONE}


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ('devices = ["raspberry"]', ["raspberry", "one-core"]),
        ('devices = ["local", "one-core", "one-core"]', ["each once"]),
        ('devices = ["own/missing.toml"]', ["missing.toml"]),
        ("devices = [1]", ["list of names"]),
    ],
)
def test_a_device_that_is_none_is_refused(devices: str, words: list[str], tmp_path: Path, main: Any) -> None:
    done = main("search", written(tmp_path, devices), "-o", tmp_path / "out")
    assert done.code == 2
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "out").exists()
