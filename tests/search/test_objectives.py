"""Objectives as pure functions: values against ones written out, intervals and probabilities against known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from seatrial.core.errors import UsageError
from seatrial.exporter.decision import Costs, Rule
from seatrial.search import objectives
from seatrial.search.objectives import Estimate, Objective, mean, measured, share, timed

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 4, 300)
SCORES = RNG.standard_normal((300, 5)) + 1.5 * np.eye(5)[LABELS]
"""Class 4 is never true, and sometimes answered."""


def test_class_measures_are_what_their_definitions_say() -> None:
    answers = [max(range(5), key=lambda c: row[c]) for row in SCORES]
    pairs = list(zip(answers, LABELS.tolist(), strict=True))
    recalls, scores = [], []
    for c in range(5):
        found = sum(a == c == y for a, y in pairs)
        true, answered = sum(y == c for _, y in pairs), sum(a == c for a, _ in pairs)
        recalls += [found / true] if true else []
        precision, recall = found / answered, found / true if true else 0.0
        scores.append(2 * precision * recall / (precision + recall) if found else 0.0)
    assert objectives.accuracy(SCORES, LABELS) == pytest.approx(sum(a == y for a, y in pairs) / 300)
    assert objectives.worst_recall(SCORES, LABELS) == pytest.approx(min(recalls))
    assert objectives.macro_f1(SCORES, LABELS) == pytest.approx(sum(scores) / 5)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.repeat([[0.9, 0.1]], 150, 0)
    right = np.array([0] * 90 + [1] * 60)
    RNG.shuffle(right)
    assert objectives.calibration_error(sure, right) == pytest.approx(0.3, abs=0.12)
    chances = RNG.uniform(0.5, 1, 20000)
    drawn = (RNG.uniform(size=20000) > chances).astype(int)
    assert objectives.calibration_error(np.stack([chances, 1 - chances], 1), drawn) < 0.02
    # Too sure of half of them, not sure enough of the others: in one bin that would nearly cancel.
    halves = np.array([[0.95, 0.05]] * 100 + [[0.6, 0.4]] * 100)
    labels = np.array([1] * 100 + [0] * 100)
    assert objectives.calibration_error(halves, labels) == pytest.approx((0.95 + 0.4) / 2, abs=0.05)


def test_a_share_has_the_exact_interval() -> None:
    found = share(9, 10)
    assert (found.low, found.high) == (pytest.approx(0.55498, abs=1e-5), pytest.approx(0.99747, abs=1e-5))
    assert (share(0, 20).low, share(20, 20).high) == (0.0, 1.0)


@pytest.mark.parametrize("measure", ["macro_f1", "worst_recall", "accuracy"])
def test_intervals_of_other_measures_hold_their_value_and_shrink_with_more_examples(measure: str) -> None:
    few, many = measured(measure, SCORES[:60], LABELS[:60]), measured(measure, SCORES, LABELS)
    for found in (few, many):
        assert found.low is not None and found.high is not None
        assert found.low <= found.value <= found.high
    assert few.high - few.low > many.high - many.low  # type: ignore[operator]
    assert measured(measure, SCORES, LABELS) == many, "the same examples have the same interval"
    assert Estimate.from_dict(many.to_dict()) == many


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = [(e := mean(rng.exponential(1.0, 80))).low <= 1.0 <= e.high for _ in range(400)]  # type: ignore[operator]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_a_bound_is_met_with_the_probability_that_noise_leaves() -> None:
    assert share(90, 100).probability(">=", 0.9) == pytest.approx(0.5, abs=0.05)
    assert share(97, 100).probability(">=", 0.9) > 0.98
    assert share(97, 100).probability("<", 0.9) < 0.02
    assert share(0, 500).probability("<=", 0.02) > 0.99
    assert share(0, 500).probability("<=", 0.0) < 0.01, "none of 500 is no proof of none at all"
    time = timed(2.0, 1.8, 2.0**2 / 1.8, 6)
    assert time.probability("<=", time.high) == pytest.approx(0.975)  # type: ignore[arg-type]
    assert time.probability("<=", 2.0) == pytest.approx(0.5)
    assert time.probability("<=", -1.0) == 0.0
    cost = mean(np.array([0.0, 1.0] * 50))
    assert cost.probability("<=", cost.low) == pytest.approx(0.025)  # type: ignore[arg-type]
    f1 = measured("macro_f1", SCORES, LABELS)
    assert f1.probability(">=", 0.0) == 1.0
    assert 0.3 < f1.probability(">=", f1.value) < 0.7
    assert f1.probability(">=", f1.high) < 0.1  # type: ignore[arg-type]


def test_what_is_exact_or_of_unknown_spread_is_met_or_not() -> None:
    for exact in (Estimate(5.0), timed(5.0, None, None, 0), mean(np.array([5.0, 5.0, 5.0])), mean(np.array([5.0]))):
        assert [exact.probability(sign, 5.0) for sign in ("<=", "<", ">=", ">", "==")] == [1, 0, 1, 0, 1]


def test_a_time_of_one_launch_scatters_as_launches_do() -> None:
    once = timed(5.0, None, None, 1)
    assert (once.low, once.high, once.probability("<=", 5.0)) == (None, None, pytest.approx(0.5))
    assert once.probability("<=", 5.0 * math.exp(1.96 * objectives.SCATTER)) == pytest.approx(0.975, abs=1e-3)
    assert once.probability(">=", 5.2) < 0.001 and once.probability("<=", 0.0) == 0.0


def test_costs_are_those_of_the_rule_s_decisions() -> None:
    """Where the third decision is the cheaper one unless the class is sure."""
    matrix = Costs(["ill", "well"], ["well", "ill", "ask"], [[10.0, 0.0, 0.9], [0.0, 2.0, 0.9]])
    rule = Rule(matrix)
    scores = np.log(np.array([[0.05, 0.95], [0.5, 0.5], [0.9, 0.1]]))
    labels = np.array([0, 1, 1])
    assert objectives.costs(rule, scores, labels).tolist() == [10.0, 0.9, 2.0]
    assert objectives.costs(rule, scores, labels, plain=True).tolist() == [10.0, 2.0, 2.0]
    other = Rule(Costs(["ill", "well"], ["treat", "wait"], [[0.0, 9.0], [1.0, 0.0]]))
    with pytest.raises(UsageError, match="other decisions"):
        objectives.costs(other, scores, labels, plain=True)


def test_an_objective_s_id_is_of_what_it_measures_not_of_its_name() -> None:
    one = Objective("a", "accuracy", "max", slice={"name": "x", "indices": [1, 2]})
    assert one.id == Objective("b", "accuracy", "max", slice={"name": "y", "indices": [1, 2]}).id
    assert one.id != Objective("a", "accuracy", "max", slice={"name": "x", "indices": [1, 3]}).id
    assert one.id != Objective("a", "macro_f1", "max", slice={"name": "x", "indices": [1, 2]}).id
    data = {"name": "d", "id": "1", "labels": [0, 1]}
    moved = Objective("a", "accuracy", "max", data={**data, "labels": [1, 1]})
    assert Objective("a", "accuracy", "max", data=data).id != moved.id
    here = {"path": "/here/f.py", "name": "f", "sha256": "1"}
    there = Objective("a", "function", "max", function={**here, "path": "/there/f.py"})
    assert Objective("a", "function", "max", function=here).id == there.id
    assert Objective.from_dict(vars(one)) == one
    older = {name: value for name, value in vars(one).items() if name != "device"}
    assert Objective.from_dict(older) == one and Objective.from_dict(older).id == one.id
    small = Objective("a", "latency_ms", "min", device={"name": "small", "profile": {"cores": 1}})
    assert small.id == Objective("b", "latency_ms", "min", device={"name": "mine", "profile": {"cores": 1}}).id
    assert small.id != Objective("a", "latency_ms", "min", device={"name": "small", "profile": {"cores": 2}}).id
    assert math.isnan(share(0, 0).value)
