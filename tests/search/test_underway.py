"""What every launch of a search is held against: one that runs, whatever was tried before."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from searches import write_model
from seatrial.core import samples
from seatrial.core.errors import NothingMeasured
from seatrial.core.process import Limits
from seatrial.devices.store import Store
from seatrial.search import on_device
from seatrial.search.candidate import Candidate
from seatrial.search.making import INPUTS, arm_of
from seatrial.search.objectives import Objective
from seatrial.search.race import REFERENCE
from seatrial.search.trials import Trial
from seatrial.search.underway import Underway

underway = importlib.import_module("seatrial.search.underway")


@pytest.fixture
def folder(tmp_path: Path, needs: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a study, in which launches are short; its name means something else in a URL."""
    needs("onnxruntime", "onnx")
    monkeypatch.setattr(underway, "Plan", functools.partial(underway.Plan, rounds=2, block_ms=2.0, warm_s=0.02))
    (tmp_path / "a%20study?" / "work").mkdir(parents=True)
    return tmp_path / "a%20study?"


def proven(folder: Path, model: str, hidden: int) -> Trial:
    """A model's only trial, with the files that it is timed from."""
    import onnxruntime

    work = folder / "work" / "models" / model
    (work / INPUTS).parent.mkdir(parents=True)
    write_model(work / "model.onnx", hidden)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 8)).astype(np.float32)}
    session = onnxruntime.InferenceSession(str(work / "model.onnx"), providers=["CPUExecutionProvider"])
    samples.save(work / INPUTS, [feed])
    samples.save(work / "outputs.npz", [{"y": session.run(None, feed)[0]}])
    candidate = Candidate.of("onnxruntime", "fp32", {"threads": 1, "graph_optimization": "all"}, model)
    place = f"work/models/{model}"
    files = {"artifact": f"{place}/model.onnx", "artifact_id": model, "outputs": f"{place}/outputs.npz"}
    return Trial(candidate, "ok", size_bytes=hidden, **files)


def test_a_reference_that_never_ran_gives_way_and_one_that_ran_stays(folder: Path) -> None:
    trials = [proven(folder, "a", 4), proven(folder, "b", 8)]
    with Underway(folder, "key", Limits(), print) as up:
        bad = up.reference(trials)
        (good,) = (trial for trial in trials if trial is not bad)
        (folder / str(bad.artifact)).write_bytes(b"no model")
        with up.sitting("race", 0) as sitting:
            with pytest.raises(NothingMeasured):
                up.launch(sitting, [arm_of(folder, bad, REFERENCE)], 2, bad)
            assert up.reference(trials) is good
            assert up.reference([bad]) is bad, "where there is no other it is tried again"
            up.launch(sitting, [arm_of(folder, good, REFERENCE)], 2, good)
        assert up.reference(trials) is good
        later = [proven(folder, f"c{k}", 4) for k in range(6)]
        assert min([good, *later], key=lambda trial: trial.id) is not good, "by itself another would be chosen"
        assert up.reference([*later, *trials]) is good


def test_on_a_device_what_failed_there_is_no_reference_either(folder: Path) -> None:
    bad, good = proven(folder, "a", 4), proven(folder, "b", 8)
    (folder / str(bad.artifact)).write_bytes(b"no model")
    objective = Objective("there", "latency_ms", "min", device=on_device.described("one-core"))
    with Underway(folder, "key", Limits(), print) as up:
        with pytest.raises(NothingMeasured):
            on_device.time_in(up, objective, [bad, good])
        assert on_device.time_in(up, objective, [good], screen=True).launches == 1, "the other isn't asked for any more"
        launches = up.trials.launches(on_device.stage_of(objective))
        assert [launch.arms[REFERENCE].ok for launch in launches] == [False, True]


def test_a_folder_s_own_facts_lie_in_it_whatever_it_is_called(folder: Path) -> None:
    with Underway(folder, "key", Limits(), print) as up:
        assert not up.elsewhere
    assert (folder / "facts.sqlite").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    with closing(Store(folder / "facts.sqlite")) as store:
        assert store.find() == []
