"""A search over networks of the user's own, to its end: no names of classes, a rule of costs, bounds, other chances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import searches
import sqlalchemy as sa
from seatrial.devices.store import Store, measurements, pack, unpack
from seatrial.exporter.run import verify
from seatrial.search.kept import Kept
from seatrial.search.objectives import Objective
from seatrial.search.roster import TUNED, UNTRAINED, Roster
from seatrial.search.study import Study
from seatrial.search.trials import Trials, trials
from seatrial.search.views import Views

STUDY = """
space = {"units": [4, 8, 4096], "spare": {"low": 0.0, "high": 1.0}}
objectives = [{"name": "missed", "cost": "costs.csv"}, "latency_ms"]
constraints = ["parameters <= 5000"]
targets = ["onnxruntime"]
precisions = ["fp32"]
search = {"evaluations": 4, "sampler": "random", "seed": 2}
budget = {"epochs": 2, "batch": 20}


def build(candidate):
    from torch import nn

    return nn.Sequential(nn.Linear(12, candidate["units"]), nn.ReLU(), nn.Linear(candidate["units"], 3))


def get_args(candidate):
    import torch

    return (torch.zeros(1, 12),)


def load_data(part):
    import numpy as np

    x = np.random.default_rng(len(part)).standard_normal((200, 12)).astype("float32")
    return x, x[:, :3].argmax(1)
"""
COSTS = ",0,1,2\n0,0,1,9\n1,1,0,9\n2,1,1,0\n"


def search(file: Path, out: Path, *more: str) -> searches.Ended:
    return searches.follow(searches.begin(file, out, *more, replay=True))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, needs: Callable[..., None]) -> Path:
    needs("torch", "onnxruntime")
    folder = tmp_path_factory.mktemp("own")
    (folder / "costs.csv").write_text(COSTS)
    (folder / "study.py").write_text(STUDY)
    return folder / "study.py"


@pytest.fixture(scope="module")
def ended(file: Path) -> searches.Ended:
    done = search(file, file.parent / "out")
    assert done.code == 0, done.error
    return done


@pytest.fixture
def study(ended: searches.Ended, file: Path, tmp_path: Path) -> Study:
    """A copy of the finished folder."""
    return Study.read(Path(shutil.copytree(file.parent / "out", tmp_path / "out")))


def changed(file: Path, tmp_path: Path, text: str) -> Path:
    """The study file with more in it."""
    shutil.copy(file.parent / "costs.csv", tmp_path)
    (tmp_path / "study.py").write_text(STUDY + text)
    return tmp_path / "study.py"


def test_a_search_ends_where_candidates_build_no_new_models(ended: searches.Ended, study: Study) -> None:
    """One variable changes no graph, so that there are two models, however many candidates."""
    assert ended.said("no new model among the last 4 candidates: the search ends with 2")
    assert sum(one["status"] == "ok" for one in study.document["models"].values()) == 2


def test_a_model_beyond_a_bound_by_its_graph_is_not_trained(ended: searches.Ended, study: Study) -> None:
    (large,) = [one for one in study.document["models"].values() if one["values"]["units"] == 4096]
    assert large["status"] == "failed" and large["reason"] == "it has 61,440 parameters, asked: parameters <= 5000"
    assert len(ended.said("training candidate")) == 2 and ended.said("not trained: it has 61,440 parameters")


def test_a_search_ends_where_all_are_beyond_the_bound(file: Path, tmp_path: Path) -> None:
    study = changed(file, tmp_path, 'space = {"units": {"low": 1000, "high": 100000}}\n')
    done = searches.follow(searches.begin(study, tmp_path / "out", "--minutes", "0.5", give_up=3))
    assert done.code == 4 and "asked: parameters <= 5000" in done.error and "Traceback" not in done.error
    assert len(done.said("not trained")) == 3 and not done.said("training", "capturing")


def test_with_another_bound_it_is(study: Study, file: Path, tmp_path: Path) -> None:
    done = search(changed(file, tmp_path, 'constraints = ["parameters <= 70000"]\n'), study.folder)
    assert done.code == 0, done.error
    assert len(done.said("training candidate")) == 1 and Study.read(study.folder).document["models"].keys() == (
        study.document["models"].keys()
    )


@pytest.mark.parametrize("name", ["best", "onnxruntime"])
def test_classes_without_names_are_numbers_and_the_bundle_decides_by_the_costs(name: str, study: Study) -> None:
    bundle = study.folder / name
    assert verify(bundle)["vectors"] > 0
    assert (bundle / "labels.txt").read_text().split() == ["0", "1", "2"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [out["name"] for out in manifest["outputs"]][-2:] == ["expected_cost", "decision"]


def test_select_packs_the_rule_of_a_bounded_cost(study: Study, main: Any, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = main("study", "select", study.folder, "--minimize", "size_bytes", "--subject-to", "missed <= 9", "-o", out)
    assert done.code == 0, done.err
    assert json.loads((out / "manifest.json").read_text())["decision"]


def test_a_training_that_is_given_more_time_is_the_same(study: Study, file: Path, tmp_path: Path) -> None:
    more = 'budget = {"epochs": 2, "batch": 20, "timeout_s": 7200.0, "memory_gib": 8}\n'
    done = search(changed(file, tmp_path, more), study.folder)
    assert done.code == 0, done.error
    assert not done.said("training", "timing", "converting", "capturing")


def test_times_that_fall_again_name_the_nearest_and_lose_nothing(study: Study, file: Path, tmp_path: Path) -> None:
    """All kept to the bound in the race; timed again, on a busy machine, nobody does."""
    most = max(c["latency_ms"] for c in study.candidates if c["latency_ms"])
    with closing(Store(study.folder / "facts.sqlite")) as store:
        for row in store.ask(sa.select(measurements).where(measurements.c.session.contains("-confirm"))):
            samples = unpack(row.samples)
            samples["run"]["blocks"] = [[100 * ns for ns in block] for block in samples["run"]["blocks"]]
            this = measurements.c.id == row.id
            store.write(sa.update(measurements).where(this).values(samples=pack(samples)))
    bound = f"latency_ms <= {10 * most:.3f}"
    done = search(changed(file, tmp_path, f'constraints = ["parameters <= 5000", "{bound}"]\n'), study.folder)
    assert done.code == 1 and "nearest" in done.error and "latency_ms <=" in done.error, done.error
    assert Study.read(study.folder).document == study.document


def test_a_deployment_that_lacked_time_is_tried_again(study: Study, file: Path) -> None:
    chosen = study.winners["best"]
    with closing(Store(study.folder / "facts.sqlite")) as store:
        key = study.document["key"]
        trial = Trials(store, key).all()[chosen]
        this = trials.c.candidate == chosen
        held = json.loads(store.ask(sa.select(trials.c.data).where(this))[0][0])
        failed = json.dumps({**held, "status": "failed", "reason": "it took too long", "kind": "timeout"})
        store.write(sa.update(trials).where(this).values(data=failed))
        one = Roster(store, key).all()[trial.candidate.model]
        Roster(store, key).put(replace(one, times={}))
    done = search(file, study.folder)
    assert done.code == 0, done.error
    assert done.said("proving") and not done.said("training", "capturing")
    found = Study.read(study.folder)
    assert found.candidate(chosen)["status"] == "ok" and found.winners == study.winners


@pytest.mark.parametrize("name", ["latency_p95_ms", "peak_memory_bytes"])
def test_what_launches_told_before_a_training_stands_for_the_trained(name: str, study: Study) -> None:
    with closing(Store(study.folder / "facts.sqlite")) as store:
        known = Trials(store, study.document["key"]).all()
        trial = known[study.winners["best"]]
        with closing(Views(study.folder, study.document, store, known)) as views:
            was = views.estimates(name).get(trial.id)
        tuned = replace(trial, candidate=replace(trial.candidate, model=trial.candidate.model + TUNED))
        before = replace(trial.candidate, model=trial.candidate.model + UNTRAINED).id
        for arm in (trial.id, before):
            row = measurements.c.arm.in_([trial.id, before])
            for found in store.ask(sa.select(measurements).where(row)):
                samples = unpack(found.samples)
                samples["run"]["name"] = arm
                this = measurements.c.id == found.id
                store.write(sa.update(measurements).where(this).values(arm=arm, samples=pack(samples)))
            for asked in (trial, tuned):
                with closing(Views(study.folder, study.document, store, {asked.id: asked})) as views:
                    assert views.estimates(name).get(asked.id) == was


def test_an_objective_for_some_runtimes_is_known_of_some_candidates(study: Study) -> None:
    objective = Objective("f1", "macro_f1", "max", targets=["onnxruntime"])
    with closing(Store(study.folder / "facts.sqlite")) as store:
        known = Trials(store, study.document["key"]).all()
        with closing(Views(study.folder, study.document, store, known)) as views:
            every = views.scored(objective)
        able = [trial for trial in known.values() if trial.status == "ok"]
        assert set(every) == {trial.id for trial in able} and len(able) > 1
        some = able[0]
        with closing(Views(study.folder, study.document, store, {some.id: some})) as views:
            assert set(views.scored(objective)) == {some.id}


def test_an_objective_added_to_the_folder_is_there_for_a_search_with_a_store(
    study: Study, file: Path, main: Any, tmp_path: Path
) -> None:
    study.add_objective("f1", measure="macro_f1")
    store = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    done = search(file, study.folder, "--store", store, "--objective", "f1,latency_ms")
    assert done.code == 0 and not done.said("training"), done.error
    study.add_objective("recall", measure="worst_recall")
    done = search(file, study.folder, "--store", store, "--objective", "recall,latency_ms")
    assert done.code == 0 and not done.said("training"), done.error
    with closing(Store(store)) as facts:
        assert set(Kept(facts, study.document["key"]).all()) == {"missed", "f1", "recall"}
    # Begun anew the study has none of them.
    main("search", file, "-o", study.folder, "--objective", "f1", "--overwrite").fails(2, "'f1' is none of this study")


def test_the_wrong_file_of_an_objective_is_told_before_anything_is_trained(
    file: Path, main: Any, tmp_path: Path
) -> None:
    study = changed(file, tmp_path, 'objectives = [{"name": "missed", "cost": "typo.csv"}]\n')
    main("search", study, "-o", tmp_path / "out").fails(2, "typo.csv", "missed")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("search = {'seed': -1}", "seed = -1"),
        ("search = {'seed': 1.5}", "seed = 1.5"),
        ("budget = {'lr': 0}", "lr = 0"),
        ("targets = ['onnxruntime', 'onnxruntime']", "each once"),
        ("precisions = ['fp32', 'fp32']", "each once"),
    ],
)
def test_wrong_numbers_and_double_names_are_told_at_once(
    more: str, words: str, file: Path, main: Any, tmp_path: Path
) -> None:
    main("search", changed(file, tmp_path, f"{more}\n"), "-o", tmp_path / "out").fails(2, words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "words"), [(("--seed", "-1"), "seed = -1"), (("--minutes", "nan"), "minutes = nan")]
)
def test_a_wrong_number_on_the_command_line_is_one_error(
    option: tuple[str, str], words: str, file: Path, main: Any, tmp_path: Path
) -> None:
    main("search", file, "-o", tmp_path / "out", *option).fails(2, words)
