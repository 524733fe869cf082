"""A finished search over many models on a runtime that it did not try: from what is stored, killed on its way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import searches
from seatrial.exporter.run import verify
from seatrial.search.several import WIDENED
from seatrial.search.study import Study

POOL = """
space = {"source": ["small.onnx", "medium.onnx", "large.onnx"]}
targets = ["onnxruntime"]
precisions = ["fp32"]
devices = ["local", "one-core"]
objectives = ["latency_ms", "size_bytes"]
constraints = ["size_bytes <= 500000"]
search = {"evaluations": 3}
"""
HIDDEN = {"small": 1000, "medium": 4000, "large": 16000}
FINALISTS = {"small.onnx", "medium.onnx"}
HERE, THERE = {"onnxruntime", "onnxruntime@one-core"}, {"openvino", "openvino@one-core"}
WORK = ("capturing", "reading", "training", "converting", "making", "proving", "timing", "confirming")


@dataclass
class Added(searches.Ended):
    """And what the command printed."""

    out: str = ""


def add(folder: Path, *more: str, until: str | None = None) -> Added:
    """`study objectives add`, times replayed; killed after the first line that begins so."""
    words = ("study", "objectives", "add", str(folder), "there", "--target", "openvino", *more)
    printed = folder.parent / "printed"
    with printed.open("w") as stdout:
        child = searches.command(*words, stdout=stdout, replay=True)

        def hear(text: str) -> None:
            if until and re.match(until, text):
                os.kill(child.pid, signal.SIGKILL)

        ended = searches.follow(child, hear)
    assert ended.code == (-signal.SIGKILL if until else 0), ended.error + "\n".join(ended.lines)
    return Added(**vars(ended), out=printed.read_text())


def search(folder: Path, out: Path, *more: str) -> searches.Ended:
    """The search, times replayed."""
    ended = searches.follow(searches.begin(folder / "study.py", out, *more, replay=True))
    assert ended.code == 0, ended.error + "\n".join(ended.lines)
    return ended


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Without the study file and its models."""
    files = [path for path in folder.iterdir() if path.is_file()]
    (folder / "away").mkdir()
    for path in files:
        path.rename(folder / "away" / path.name)
    try:
        yield
    finally:
        for path in files:
            (folder / "away" / path.name).rename(path)
        (folder / "away").rmdir()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    """The finished study `out` of three models, of which the largest misses the constraint."""
    needs("onnxruntime", "onnx", "openvino")
    folder = tmp_path_factory.mktemp("widened")
    (folder / "study.py").write_text(POOL)
    for name, hidden in HIDDEN.items():
        searches.write_model(folder / f"{name}.onnx", hidden)
    search(folder, folder / "out")
    return folder


@pytest.fixture(scope="module")
def added(folder: Path) -> Added:
    """The study `wide`, with one more runtime."""
    shutil.copytree(folder / "out", folder / "wide")
    with away(folder):
        return add(folder / "wide", "--subject-to", "latency_ms <= 1000")


@pytest.fixture
def wide(folder: Path, added: Added, tmp_path: Path) -> Path:
    """A copy of `wide`, to be changed."""
    return shutil.copytree(folder / "wide", tmp_path / "wide")


def sources(study: Study, target: str) -> set[str]:
    """The models that have a deployment on a target."""
    models = study.document["models"]
    return {models[c["model"]]["values"]["source"] for c in study.candidates if c["target"] == target}


def test_only_the_finalists_are_made_and_timed_there(folder: Path, added: Added) -> None:
    before, after = Study.read(folder / "out"), Study.read(folder / "wide")
    assert sources(before, "onnxruntime") == {f"{name}.onnx" for name in HIDDEN}
    assert sources(after, "openvino") == FINALISTS
    assert len(added.said("converting onnx → openvino")) == len(FINALISTS) == len(added.said("converting"))
    assert not added.said("capturing", "reading", "training")
    assert len(added.said("timing")) == len(FINALISTS), "one launch for each model"
    old, new = searches.facts(folder / "out" / "facts.sqlite"), searches.facts(folder / "wide" / "facts.sqlite")
    assert old.items() <= new.items()
    more = [key for key in new if key not in old and key[0] == "trial"]
    assert len(more) == sum(c["target"] == "openvino" for c in after.candidates)
    launches = len(added.said("timing", "confirming"))
    assert f"retrainings: 0, conversions: 2, artifacts run on new examples: 0, launches timed: {launches}," in added.out
    assert "a new trial meets the demand" in added.out and "against the old winner: " in added.out


def test_each_device_has_a_front_and_a_proven_bundle_there(folder: Path, added: Added) -> None:
    before, after = Study.read(folder / "out"), Study.read(folder / "wide")
    assert set(before.document["fronts"]) == HERE and set(after.document["fronts"]) == HERE | THERE
    for place in THERE:
        chosen = after.candidate(after.winners[place])
        assert chosen["target"] == "openvino" and chosen["size_bytes"] <= 500000 and chosen["launches"] == 2
        assert verify(folder / "wide" / place)["vectors"]
    for key in ("goals", "models", "trainings", "source", "title", "command", "deployed", "devices"):
        assert after.document[key] == before.document[key]
    assert after.document["comparisons"], "the best of old was timed beside the new ones"
    assert "OpenVINO on one-core" in (folder / "wide" / "report.html").read_text()


def test_it_is_selected_from_and_the_same_call_does_nothing(wide: Path, main: Any, tmp_path: Path) -> None:
    document = (wide / "study.json").read_bytes()
    done = main("study", "objectives", "add", wide, "there", "--target", "openvino")
    assert done.code == 0, done.err
    assert "retrainings: 0, conversions: 0, artifacts run on new examples: 0, launches timed: 0," in done.out
    assert not re.search(rf"\] ({'|'.join(WORK)}|packing)", done.err)
    assert (wide / "study.json").read_bytes() == document
    done = main("study", "select", wide, "--target", "openvino", "-o", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["target"] == "openvino"
    done = main("study", "show", wide)
    assert done.code == 0 and "\nopenvino@one-core" in done.out, done.err


def test_a_kill_loses_the_step_under_way_alone(folder: Path, added: Added, tmp_path: Path) -> None:
    out = shutil.copytree(folder / "out", tmp_path / "out")
    untils = ("timing", "confirming .* launch 2", "packing openvino", None)
    runs = [add(out, "--subject-to", "latency_ms <= 1000", until=until) for until in untils]
    assert [len(run.said("converting")) for run in runs] == [2, 0, 0, 0]
    assert sum(len(run.said("proving")) for run in runs) == len(added.said("proving"))
    assert not runs[2].said("proving", "timing"), "the last launch alone was missing"
    assert not runs[3].said(*WORK) and runs[3].said("packing openvino"), "the bundles alone were missing"
    assert searches.outcome(out) == searches.outcome(folder / "wide")
    assert searches.facts(out / "facts.sqlite").keys() == searches.facts(folder / "wide" / "facts.sqlite").keys()
    assert all(verify(out / place)["vectors"] for place in THERE)


def test_the_search_goes_on_and_new_finalists_come_to_it(folder: Path, wide: Path) -> None:
    """By the study file nothing changes; by a looser constraint the largest model comes to the fronts."""
    before = searches.outcome(wide)
    assert not search(folder, wide).said(*WORK)
    assert searches.outcome(wide) == before
    ended = search(folder, wide, "--subject-to", "size_bytes <= 1e7")
    assert not ended.said("converting", "timing")
    assert set(Study.read(wide).document["fronts"]) == HERE | THERE
    assert all((wide / place / "manifest.json").exists() for place in THERE)
    assert sources(Study.read(wide), "openvino") == FINALISTS
    again = add(wide)
    assert again.said("converting") == ["converting onnx → openvino"] and len(again.said("timing")) == 1
    assert sources(Study.read(wide), "openvino") == {f"{name}.onnx" for name in HIDDEN}


def test_times_of_two_versions_do_not_meet(folder: Path, wide: Path, main: Any) -> None:
    """As if the runtime had been another version when it was added."""
    held = wide / "work" / WIDENED
    assert json.loads(held.read_text())["openvino"]["whole"]
    held.write_text(json.dumps({"openvino": {"version": "1.0", "whole": True}}))
    search(folder, wide)
    study = Study.read(wide)
    assert set(study.document["fronts"]) == HERE and sources(study, "openvino") == set()
    assert any(
        note.startswith("openvino is left out: it was added with version 1.0") for note in study.document["notes"]
    )
    main("study", "objectives", "add", wide, "more", "--target", "openvino").fails(2, "with version 1.0")


def test_a_runtime_that_is_none_is_refused(wide: Path, main: Any) -> None:
    main("study", "objectives", "add", wide, "more", "--target", "openvivo").fails(2, "did you mean openvino?")
    assert "more" not in Study.read(wide).objectives
