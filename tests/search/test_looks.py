"""Models are timed before they are trained where a training is dear, and only there."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
import searches
from seatrial.devices.store import Store
from seatrial.search.looks import LOOKS, PRICED, price
from seatrial.search.roster import UNTRAINED, Roster, Tried
from seatrial.search.study import Study

MORE = """
weights = "own"
targets = ["onnxruntime"]
precisions = ["fp32"]
search = {"calibration": 50, "examples": 300}
"""


def trained(n: int, seconds: float) -> list[Tried]:
    return [Tried(f"m{i}", {"width": i}, "ok", trained="alone", seconds=seconds) for i in range(n)]


@pytest.mark.parametrize(("training_s", "pays"), [(40.0, True), (29.0, False)])
def test_looks_pay_where_they_cost_less_than_the_training(training_s: float, pays: bool, tmp_path: Path) -> None:
    models = [*trained(PRICED, training_s), Tried("bad", {}, "failed", "it diverged")]
    seconds = {"train": 1e4, "confirm": 1e4, "convert": 6 * 6.0, "measure": 6 * 4.0}
    found = price(tmp_path, models, seconds)
    assert found is not None
    assert (found.training_s, found.look_s, found.pays) == (training_s, 10.0, pays)
    assert price(tmp_path, trained(9, 1.0), {"convert": 1e9}) == found  # the first answer stands


def test_a_few_models_tell_nothing_yet(tmp_path: Path) -> None:
    assert price(tmp_path, trained(PRICED - 1, 40.0), {"convert": 1.0}) is None
    assert not list(tmp_path.iterdir())


def test_a_search_looks_at_untrained_models_once_trainings_are_known_to_be_dear(tmp_path: Path) -> None:
    file, out = tmp_path / "study.py", tmp_path / "out"
    file.write_text(searches.digits([0.5, 1.0], [4, 8]) + MORE)

    def search(models: int) -> searches.Ended:
        done = searches.follow(searches.begin(file, out, "--evaluations", str(models), replay=True))
        assert done.code == 0, done.error
        return done

    first = search(1)
    assert not first.said("looking", "the shared training", "inheriting"), "nobody knows yet what a training takes"
    (out / "work/looks.json").write_text(json.dumps({"training_s": 100.0, "look_s": 1.0}))
    second = search(2)
    assert len(second.said("looking at a model before it is trained")) == LOOKS
    with closing(Store(out / "facts.sqlite")) as store:
        found = Roster(store, Study.read(out).document["key"]).all()
    looked = {model.removesuffix(UNTRAINED): one for model, one in found.items() if model.endswith(UNTRAINED)}
    assert len(looked) == LOOKS
    assert all(one.times and not one.trained for one in looked.values())
    chosen = list(found)[-1]
    assert chosen in looked, "one of those that were looked at is trained"
    assert list(found[chosen].times.values()) == list(looked[chosen].times.values())
    assert len(second.said("timing")) == LOOKS, "times don't depend on weights"
    assert not re.search(r"looking|training|timing", "\n".join(search(2).lines))
