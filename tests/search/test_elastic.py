"""From values to a trained model: graph facts, the shared training and what is inherited, failures, kills, sources."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import searches
from seatrial import load
from seatrial.core import process
from seatrial.core.errors import ChildFailed, UsageError
from seatrial.exporter import export
from seatrial.exporter.sources import detect
from seatrial.search import studyfile
from seatrial.search.models import elastic
from seatrial.search.models.api import Models, Result
from seatrial.search.models.fidelity import fidelity

pytest.importorskip("sklearn")

DIGITS = searches.digits([0.5, 0.6, 1.0], [6, 8])
OWN = """
import os
import signal
import time

from helper import linear

space = {"kind": ["plain", "same", "wide", "dies", "raises", "two"], "rate": [0.1, 0.2], "way": ["fine", "nan", "slow"]}
training = ["rate", "way"]
budget = {"epochs": 1}


def build(candidate):
    import torch

    kind = candidate["kind"]
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "raises":
        raise ValueError("no such network")
    body = linear(16 if kind == "wide" else 8)
    return torch.nn.Sequential(torch.nn.Sequential(body)) if kind == "same" else torch.nn.Sequential(body)


def get_args(candidate):
    import torch

    return (torch.arange(6.0).reshape(1, 6),)


def train(model, candidate, budget):
    import torch

    if candidate["way"] == "slow":
        time.sleep(600)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan") if candidate["way"] == "nan" else candidate["rate"])


def load_data(part):
    import numpy as np

    inputs = np.random.default_rng(0).normal(size=(40, 6))
    return inputs, (inputs.sum(1) > 0).astype(int)
"""
HELPER = """
def linear(units):
    import torch

    return torch.nn.Sequential(torch.nn.Linear(6, units), torch.nn.ReLU(), torch.nn.Linear(units, 2))
"""
FINE = {"kind": "plain", "rate": 0.1, "way": "fine"}


CHILD = """
import json, sys
from pathlib import Path
import torch
from seatrial.core.errors import ChildFailed
from seatrial.search import studyfile
from seatrial.search.models import elastic, shared, source, training

given = json.loads(sys.argv[1])
"""


def in_child(text: str, **given: Any) -> Any:
    """What this code prints as JSON: torch is never loaded beside the other runtimes of this process."""
    argv = [sys.executable, "-P", "-c", CHILD + textwrap.dedent(text), json.dumps(given)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def opened(folder: Path, text: str, work: str = "work") -> Models:
    folder.mkdir(exist_ok=True)
    (folder / "study.py").write_text(text)
    (folder / "helper.py").write_text(HELPER)
    return Models(studyfile.read(folder / "study.py"), folder / work)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return opened(tmp_path_factory.mktemp("digits"), DIGITS)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return opened(tmp_path_factory.mktemp("own"), OWN)


def options(models: Models) -> dict[str, Any]:
    assert models.study.family is not None
    return models.study.family


@pytest.fixture(scope="module")
def inherited(digits: Models) -> list[Result]:
    """Of the largest, one between, and the smallest candidate."""
    smallest = elastic.extreme(options(digits), False)
    return digits.inherit([digits.largest, {**digits.largest, "width1": 0.5, "kernel2": 3}, smallest])


def test_what_builds_the_same_graph_is_one_candidate(digits: Models) -> None:
    # 16 × 0.5 and 16 × 0.6 are 8 channels both.
    half, rounded, larger = ({**digits.largest, "width1": x} for x in (0.5, 0.6, 1.0))
    kernel, resolution = {**half, "kernel1": 3}, {**half, "resolution": 6}
    smallest = elastic.extreme(options(digits), False)
    found = digits.facts([half, rounded, larger, kernel, resolution, smallest])
    assert found[0] == found[1]
    assert len({facts.key for facts in found}) == 5
    assert all(facts.macs and facts.parameters for facts in found)


def test_work_and_parameters_are_counted_from_the_graph(own: Models) -> None:
    changed = [{**FINE, **change} for change in ({"rate": 0.2}, {"way": "nan"}, {"way": "slow"}, {"kind": "raises"})]
    kinds = [{**FINE, "kind": kind} for kind in ("plain", "same", "wide")]
    plain, same, wide, *_, raises = own.facts([*kinds, *changed])
    assert raises.key is None and "ValueError: no such network" in str(raises.error)
    failed = own.train(changed[-1])
    assert failed.status == "failed" and "no such network" in str(failed.reason)
    assert (plain.macs, plain.parameters) == (6 * 8 + 8 * 2, 6 * 8 + 8 + 8 * 2 + 2)
    assert plain.key == same.key != wide.key
    assert own.key(FINE) != own.key({**FINE, "rate": 0.2})  # the graph is the same, its training isn't


def test_keys_are_the_same_in_another_process_and_folder(own: Models) -> None:
    assert Models(own.study, own.folder.parent / "again").key(FINE) == own.key(FINE)


def test_a_candidate_that_dies_takes_no_other_with_it(own: Models) -> None:
    dies, fine = own.facts([{**FINE, "kind": "dies"}, {"kind": "wide", "rate": 0.2, "way": "fine"}])
    assert dies.key is None and "SIGSEGV" in str(dies.error)
    assert fine.key
    with pytest.raises(ChildFailed, match="SIGSEGV"):
        own.key({**FINE, "kind": "dies"})


@pytest.mark.parametrize(
    ("way", "limits", "kind", "words"),
    [
        ("nan", {}, "diverged", "NaN or infinity"),
        ("slow", {"timeout_s": 1.0}, "timeout", "no end after 1 s"),
        ("slow", {"memory_gib": 0.02}, "oom", "limit 0.02 GiB"),
    ],
)
def test_a_training_that_fails_is_data(way: str, limits: dict[str, Any], kind: str, words: str, own: Models) -> None:
    found = own.train({**FINE, "way": way}, dataclasses.replace(own.study.budget, **limits))
    assert (found.status, found.kind) == ("failed", kind) and words in str(found.reason)
    assert not found.folder.exists()


def test_more_time_for_the_shared_training_is_given_in_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(DIGITS.replace("shared = {", 'shared = {"timeout_s": 0.1, '))
    with pytest.raises(ChildFailed) as failed:
        Models(studyfile.read(tmp_path / "study.py"), tmp_path / "work").train_shared()
    assert failed.value.kind == "timeout"
    assert "timeout_s of 'shared' in the study file" in failed.value.todo and "--timeout" not in failed.value.todo


def test_a_loss_that_runs_away_is_divergence(tmp_path: Path) -> None:
    found = in_child(
        """
        import numpy as np
        data = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), np.arange(8) % 2
        kinds = []
        for loss in (float("nan"), 100.0, 0.5):
            state = Path(given["state"] + str(loss))
            try:
                training.run(torch.nn.Linear(4, 2), data, studyfile.Budget(epochs=1), state, lambda x, y: loss)
                kinds.append(None)
            except ChildFailed as error:
                kinds.append([error.kind, error.found])
        print(json.dumps(kinds))
        """,
        state=str(tmp_path / "state"),
    )
    assert [kind for kind, words in found[:2] if "diverged" in words] == ["diverged"] * 2 and found[2] is None


def test_a_smaller_net_is_a_part_of_the_largest(digits: Models) -> None:
    found = in_child(
        """
        options = given["options"]
        whole = shared.supernet(options).eval()
        weight = whole.state_dict()["stages.0.1.depthwise.0.weight"]
        again = elastic.build(given["largest"], options).eval()
        again.load_state_dict(shared.inherited(again, whole.state_dict()))
        (image,) = elastic.example(options)
        part = torch.equal(shared.cut(weight, (16, 1, 3, 3)), weight[:16, :, 1:4, 1:4])
        print(json.dumps([list(weight.shape), part, torch.equal(again(image), whole(image))]))
        """,
        options=options(digits),
        largest=digits.largest,
    )
    assert found == [[32, 1, 5, 5], True, True]


def test_all_of_the_family_learns_in_one_training(digits: Models, inherited: list[Result]) -> None:
    course = digits.train_shared()
    assert course["epochs"] == 4 and course["loss"][-1] < course["loss"][0] / 2
    assert all(result.status == "ok" and result.n == 400 for result in inherited)
    largest, _, smallest = (result.accuracy or 0 for result in inherited)
    assert largest > 0.8 and smallest > 0.5


def test_per_example_outputs_are_kept(inherited: list[Result]) -> None:
    held = np.load(inherited[0].folder / "valid.npz")
    assert held["scores"].shape == (400, 10) and held["scores"].dtype == np.float32
    assert (held["scores"].argmax(1) == held["labels"]).mean() == inherited[0].accuracy


def test_an_inherited_candidate_has_statistics_of_its_own(digits: Models, inherited: list[Result]) -> None:
    whole = next((digits.folder / "shared").iterdir())
    found = in_child(
        """
        whole, own = (source.weights(Path(folder)) for folder in given["folders"])
        weight, mean = "stages.0.0.project.0.weight", "stages.0.0.project.1.running_mean"
        same = torch.equal(own[weight], shared.cut(whole[weight], own[weight].shape))
        print(json.dumps([same, torch.equal(own[mean], whole[mean][: len(own[mean])])]))
        """,
        folders=[str(whole), str(inherited[2].folder)],
    )
    assert found == [True, False]


def test_nothing_is_made_twice(digits: Models, inherited: list[Result], monkeypatch: pytest.MonkeyPatch) -> None:
    again = Models(digits.study, digits.folder.parent)
    monkeypatch.setattr(process, "call", None)
    assert again.train_shared() == digits.train_shared()
    found = again.inherit([dict(result.values) for result in inherited])
    assert found == inherited


def test_a_killed_training_goes_on_and_ends_as_one_that_was_not(
    digits: Models, inherited: list[Result], tmp_path: Path
) -> None:
    values, budget = inherited[2].values, dataclasses.replace(digits.study.budget, epochs=6)
    undisturbed = digits.train(values, budget)
    assert undisturbed.epochs == 6
    out, state = digits.folder / "killed", digits.folder / "state" / "killed.pt"
    args: dict[str, Any] = {"study": digits.study.for_child, "values": values, "budget": vars(budget), "start": None}
    args |= {"state": str(state), "out": str(out)}

    def start() -> process.Running:
        return process.start(
            "seatrial.search.models.tasks:train", args, workdir=digits.folder / "log" / "killed", label="a training"
        )

    running, deadline = start(), time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.cancel()
    assert not out.exists()
    shutil.copy(state, kept := tmp_path / "state.pt")
    start().result()
    epoch, *digests = in_child(
        """
        epoch = torch.load(given["state"], weights_only=True)["course"]["epoch"]
        print(json.dumps([epoch, *(source.digest(source.weights(Path(folder))) for folder in given["folders"])]))
        """,
        state=str(kept),
        folders=[str(out), str(undisturbed.folder)],
    )
    assert 1 <= epoch < 6 and digests[0] == digests[1]
    assert not state.exists()


def test_finetuning_starts_from_what_was_inherited_and_is_confirmed_on_test(
    digits: Models, inherited: list[Result]
) -> None:
    start = inherited[2]
    found = digits.train(start.values, dataclasses.replace(digits.study.finetune, epochs=1), start)
    assert found.status == "ok" and (found.accuracy or 0) > 0.5 and found.tested is None
    confirmed = digits.confirm(found)
    held = np.load(found.folder / "test.npz")
    assert confirmed.tested == (held["scores"].argmax(1) == held["labels"]).mean() and len(held["labels"]) == 397


def test_a_source_is_captured_wherever_it_lies(own: Models, tmp_path: Path) -> None:
    result = own.train(FINE)
    assert result.status == "ok", result.reason
    assert str(own.study.path.parent) not in result.source.read_text()
    moved = shutil.copytree(result.folder, tmp_path / "elsewhere")
    assert detect(moved / "model.py").identity() == detect(result.source).identity()
    (exported,) = export(moved / "model.py", "onnxruntime", output=tmp_path / "bundle")
    image = np.arange(6, dtype=np.float32)[None]
    hidden = np.maximum(0.1 * image.sum() + 0.1, 0)
    (answer,) = load(exported.bundle.path).run({"input": image}).values()
    assert np.allclose(answer, 8 * 0.1 * hidden + 0.1, rtol=1e-5)


def test_data_that_can_not_be_had_is_no_candidates_fault(tmp_path: Path) -> None:
    models = opened(tmp_path, OWN.replace("    import numpy as np\n", "    raise OSError('install the data')\n"))
    with pytest.raises(UsageError, match="install the data"):
        models.train(FINE)


def test_rank_fidelity_of_a_few_candidates_has_an_honest_interval() -> None:
    perfect = fidelity([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1, 2, 3, 4, 5, 6])
    assert perfect.rho == 1 and perfect.trusted and 0.4 < perfect.low < 0.8 and perfect.high > 0.99
    many = fidelity(list(range(40)), list(range(40)))
    assert many.low > 0.95
    mixed = fidelity([1, 2, 3, 4, 5, 6], [2, 1, 5, 3, 6, 4])
    assert not mixed.trusted and mixed.low < 0 < mixed.high < 1 and "below 0.7" in mixed.text
    assert fidelity([1, 1, 1], [1, 2, 3]).rho is None
