"""Who is on a front and who is chosen, by objectives in their order, under constraints, with what is only likely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import norm
from seatrial.devices.launches import ArmRun, Launch
from seatrial.search.candidate import Candidate
from seatrial.search.fronts import Fronts, hypervolume
from seatrial.search.goals import Goals
from seatrial.search.objectives import SCATTER, Estimate, timed
from seatrial.search.race import REFERENCE
from seatrial.search.roster import TUNED, Tried
from seatrial.search.trials import Trial

SETTINGS = {"threads": 1, "graph_optimization": "all"}
SLOW, LIKE, POOR, LOSER = (Candidate.of("onnxruntime", "fp32", SETTINGS, model) for model in ("a", "b", "c", "d"))
MS = {SLOW: 2.0, LIKE: 1.0, POOR: 0.5, LOSER: 3.0}
RIGHT = {SLOW: 270, LIKE: 268, POOR: 150, LOSER: 266}
"""Of 300 examples."""


def share(right: int) -> Estimate:
    p = right / 300
    return Estimate(p, p - 0.04, p + 0.04, 300, ("share", right))


def launch(index: int, ms: Mapping[Candidate, float]) -> Launch:
    arms = {
        REFERENCE: ArmRun(REFERENCE, REFERENCE, blocks=[[1_000_000] * 3] * 4, opened={"load_ms": 1.0, "first_ms": 1.0})
    }
    for who, time in ms.items():
        blocks = [[round(1e6 * time * (1 + 0.001 * k))] * 3 for k in range(4)]
        arms[who.id] = ArmRun(who.id, who.id, blocks=blocks, opened={"load_ms": 1.0, "first_ms": 1.0})
    return Launch(index, "0", [], arms, 0.0)


def fronts(objectives: Sequence[str], constraints: Sequence[str] = (), again: Sequence[Candidate] = ()) -> Fronts:
    goals = Goals.read(objectives, constraints, Path(), "a test")
    parity = {"parity": {"agreement": 1.0, "sqnr_db": 100.0}, "placement": {"precision": "fp32"}, "settings": {}}
    trials = {c.id: Trial(c, "ok", proof=parity, size_bytes=1000) for c in MS}
    values = {
        "accuracy": {c.id: share(right) for c, right in RIGHT.items()},
        "latency_ms": {c.id: Estimate(ms, ms * 0.98, ms * 1.02, 3, ("log t", 0.01)) for c, ms in MS.items()},
        "size_bytes": {c.id: Estimate(1000.0) for c in MS},
    }
    raced = [launch(i, MS) for i in range(3)]
    confirmed = [launch(i, {c: MS[c] for c in again}) for i in range(2)] if again else []
    models = {c.model: Tried(c.model, {}, "ok") for c in MS}
    return Fronts(trials, raced, confirmed, goals, values, models)


def test_nobody_on_a_front_is_surpassed_and_the_best_by_the_first_objective_comes_first() -> None:
    assert fronts(["accuracy", "latency_ms"]).fronts == {"onnxruntime": [SLOW.id, LIKE.id, POOR.id]}
    assert fronts(["latency_ms", "accuracy"]).fronts == {"onnxruntime": [POOR.id, LIKE.id, SLOW.id]}


def test_among_those_not_proven_worse_the_next_objective_decides() -> None:
    """Two pictures of 300 prove nothing; 120 do."""
    assert fronts(["accuracy", "latency_ms"]).winners == {"onnxruntime": LIKE.id, "best": LIKE.id}
    assert fronts(["latency_ms", "accuracy"]).winners["best"] == POOR.id
    assert fronts(["accuracy"]).winners["best"] == SLOW.id


def test_a_constraint_must_hold_for_sure_where_anybody_is_sure() -> None:
    found = fronts(["latency_ms"], ["accuracy >= 0.85"])
    assert found.holds(found.goals.bounds[0], SLOW.id) > 0.95 > found.holds(found.goals.bounds[0], POOR.id)
    assert found.winners["best"] == LIKE.id
    found = fronts(["latency_ms"], ["accuracy >= 0.868"])
    assert 0.8 < found.holds(found.goals.bounds[0], LIKE.id) < 0.95 and found.winners["best"] == SLOW.id
    # Nobody is sure of what the best just has: then it is enough to have it.
    assert fronts(["latency_ms"], ["accuracy >= 0.9"]).winners == {"onnxruntime": SLOW.id, "best": SLOW.id}
    assert fronts(["latency_ms"], ["accuracy >= 0.95"]).winners == {}


def test_one_launch_puts_nobody_on_a_front_once_some_were_timed_again() -> None:
    found = fronts(["accuracy", "latency_ms"], again=[SLOW, POOR])
    assert found.fronts == {"onnxruntime": [SLOW.id, POOR.id]} and found.winners["best"] == SLOW.id


def test_what_one_launch_told_is_not_sure() -> None:
    """Else what was timed once would be surer of a bound than what was timed again."""
    assert timed(1.97, None, None, 1).probability("<=", 2) == pytest.approx(norm.cdf(math.log(2 / 1.97) / SCATTER))
    assert timed(1.9, None, None, 1).probability("<=", 2) > 0.95 > timed(1.99, None, None, 1).probability("<=", 2) > 0.5


def test_who_was_not_timed_again_is_to_be_where_the_others_are_no_longer_sure() -> None:
    """LIKE seemed to keep to the bound and then just does; SLOW, timed once, does so surely."""
    found = fronts(["latency_ms"], ["accuracy >= 0.868"], again=[LIKE])
    assert found.finalists == [SLOW.id]


def test_each_place_falls_back_on_estimates_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Candidate.of("openvino", "fp32", {"threads": 1}, model="b")
    monkeypatch.setitem(MS, other, 0.9)
    monkeypatch.setitem(RIGHT, other, 268)
    found = fronts(["latency_ms"], ["accuracy >= 0.868"])
    assert found.winners == {"onnxruntime": SLOW.id, "openvino": other.id, "best": SLOW.id}, "the sure one is the best"


def test_of_a_model_and_the_same_trained_further_the_latter_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the objectives don't tell them apart; where they do, they decide."""
    further = replace(POOR, model=f"{POOR.model}{TUNED}")
    monkeypatch.setitem(MS, further, 0.6)
    monkeypatch.setitem(RIGHT, further, 160)
    assert fronts(["size_bytes"]).winners["best"] == further.id
    assert fronts(["latency_ms"]).winners["best"] == POOR.id


def test_the_reason_names_who_surpasses() -> None:
    found = fronts(["accuracy", "latency_ms"])
    assert found.reason(found.trials[LIKE.id]) is None and found.reason(found.trials[SLOW.id]) == "on the front"
    assert str(found.reason(found.trials[LOSER.id])).startswith("surpassed by")


def test_hypervolume_is_the_area_below_the_reference() -> None:
    assert hypervolume([(0.5, 0.5)], (1, 1)) == 0.25
    assert hypervolume([(0.2, 0.6), (0.6, 0.2), (0.7, 0.7), (2, 0)], (1, 1)) == 0.8 * 0.4 + 0.4 * 0.4
    assert hypervolume([], (1, 1)) == 0
