"""Several benchmarks of one run: their looks, Holm's steps, and how often such a run cries wolf."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from seatrial.devices.family import Case, compare_all, rule_for, settle
from seatrial.devices.gate import Decision, Rule, Verdict, judge, provable, without_comparison
from seatrial.devices.stats import t_interval


def sitting(true: float, rng: np.random.Generator, rule: Rule, spread: float = 0.004) -> Decision:
    effects = rng.normal(math.log1p(true), spread, rule.looks[-1].launches)
    canaries = rng.normal(0, spread, len(effects))
    for i, look in enumerate(rule.looks):
        decision = judge(effects[: look.launches], canaries[: look.launches], rule, i)
        if decision.final:
            return decision
    raise AssertionError("no final look")


def run(true: list[float], rng: np.random.Generator, rule: Rule, spread: float = 0.004) -> list[Verdict]:
    decisions = [sitting(each, rng, rule, spread) for each in true]
    return [one.verdict for one in settle(decisions, [rule] * len(true))]


def test_the_whole_run_is_red_by_chance_no_more_often_than_one_benchmark_may_be():
    """At the margin itself, where each alone would be red in 1 % of runs."""
    rng, rule = np.random.default_rng(0), rule_for(True, 0.01, None, 8)
    red = sum(Verdict.REGRESS in run([0.01] * 8, rng, rule) for _ in range(200))
    assert red <= 0.03 * 200
    alone = rule_for(True, 0.01, None)
    undivided = [[sitting(0.01, rng, alone).verdict for _ in range(8)] for _ in range(200)]
    assert sum(Verdict.REGRESS in verdicts for verdicts in undivided) > 0.03 * 200  # the test can see it


def test_one_real_slowdown_among_many_is_caught_and_the_others_stay_green():
    rng, rule = np.random.default_rng(1), rule_for(False, 0.01, 0.05, 8)
    for _ in range(50):
        verdicts = run([0.0] * 7 + [0.05], rng, rule, 0.003)
        assert verdicts[-1] == Verdict.REGRESS and set(verdicts[:-1]) == {Verdict.PASS}


def test_holm_proves_more_than_each_at_its_first_step():
    """Two of three slowdowns are clear, so the third needs only all of alpha."""
    rule = rule_for(True, 0.01, 0.10, 3)
    still = [0.0001, -0.0001, 0.0, 0.0001, -0.0001]
    clear = judge([0.0801, 0.0799, 0.08, 0.0801, 0.0799], still, rule, 0)
    weak = judge([x + 0.0158 for x in (0.004, -0.004, 0.002, -0.002, 0.0)], still, rule, 0)
    assert (clear.verdict, weak.verdict) == (Verdict.REGRESS, Verdict.PASS)
    assert weak.p is not None and rule.alpha / 3 < weak.p < rule.alpha
    found = settle([clear, weak, clear], [rule] * 3)
    assert [one.verdict for one in found] == [Verdict.REGRESS] * 3
    assert "Holm" in found[1].reason and found[1].effect is not None
    assert math.log1p(0.01) < found[1].effect.low < found[1].effect.centre
    assert settle([weak, weak, clear], [rule] * 3)[0].verdict == Verdict.PASS  # two are left: half of alpha each


def test_what_was_not_measured_counts_as_not_proven():
    rule = rule_for(True, 0.01, 0.10, 2)
    invalid = Decision(Verdict.INVALID, "noisy", effect=None, p=0.0)
    found = settle([invalid, without_comparison("gone"), without_comparison("new", baseline=False)], [rule] * 3)
    assert [one.verdict for one in found] == [Verdict.INVALID, Verdict.MISSING, Verdict.NEW]


def test_looks_are_planned_by_what_the_first_would_prove():
    assert [len(rule_for(False, 0.01, 0.05, m).looks) for m in (1, 2, 10, 20)] == [2, 2, 2, 1]
    assert [look.launches for look in rule_for(False, 0.01, 0.05, 20).looks] == [12]
    assert len(rule_for(False, 0.01, 0.02).looks) == 2  # alone it is the protocol's, whatever the margins
    assert [look.launches for look in rule_for(True, 0.01, None, 20).looks] == [5]
    assert rule_for(True, 0.01, None).detect == 0.10


def test_power_falls_with_the_number_of_benchmarks_and_is_told():
    rule = rule_for(True, 0.01, 0.10, 10)
    one = judge([0.001, -0.001, 0.002, -0.002, 0.0], [0.0, 0.0001, 0.0, -0.0001, 0.0], rule, 0)
    assert one.effect is not None and one.detectable is not None
    assert provable(one.effect, rule, 1) < provable(one.effect, rule, 10) == one.detectable
    assert one.effect.low < -one.effect.high  # the alarm's bound is wider than the one that makes it green


def test_of_several_one_that_cannot_be_read_is_missing_and_the_others_are_measured(model, tmp_path, monkeypatch):
    green = Decision(Verdict.PASS, "for a test", effect=t_interval([0.001, -0.001]), p=1.0)
    monkeypatch.setattr("seatrial.devices.compare.decide", lambda *_: green)
    good, broken = model("a.onnx"), tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    given = [
        Case("good", good, good, origin="main (1a2b)"),
        Case("broken", good, broken),
        Case("new", tmp_path / "absent", good),
        Case("gone", "main", "model.py", decision=without_comparison("it can't be built")),
    ]
    found = compare_all(given, quick=True, seed=1)
    assert [str(one.verdict) for one in found] == ["PASS", "MISSING", "NEW", "MISSING"]
    assert (found[0].base.arm.name, found[0].candidate.arm.name) == ("main (1a2b)", "good")
    assert {one.rule.family for one in found} == {2}  # those that have two sides
    assert json.loads(json.dumps([one.to_dict() for one in found]))[3]["reason"] == "it can't be built"
    with pytest.raises(Exception, match=r"broken\.onnx"):
        compare_all([given[1]], quick=True)
