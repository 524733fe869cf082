"""The gate on simulated sessions whose truth is known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from seatrial.core.errors import UsageError
from seatrial.devices.gate import QUICK_LOOKS, Decision, Look, Rule, Verdict, judge, without_comparison

RULE = Rule()


def session(true: float, rng: np.random.Generator, spread: float = 0.004, rule: Rule = RULE) -> tuple[Decision, int]:
    """A whole comparison whose launches scatter by `spread`, now and then much more, as on a shared machine."""
    n = rule.looks[-1].launches
    scale = spread * np.where(rng.random((2, n)) < 0.05, 3, 1)
    effects, canaries = rng.normal([[math.log1p(true)], [0.0]], scale)
    for i, look in enumerate(rule.looks):
        decision = judge(effects[: look.launches], canaries[: look.launches], rule, i)
        if decision.final:
            return decision, look.launches
    raise AssertionError("no final look")


def outcomes(true: float, n: int = 400, **kwargs: object) -> tuple[Counter[Verdict], float]:
    rng = np.random.default_rng(int(1000 * abs(true)) + 5)
    found = [session(true, rng, **kwargs) for _ in range(n)]  # type: ignore[arg-type]
    return Counter(d.verdict for d, _ in found), float(np.mean([launches for _, launches in found]))


def test_no_difference_is_never_red_and_nearly_always_green():
    verdicts, launches = outcomes(0.0)
    assert verdicts[Verdict.REGRESS] == 0
    assert verdicts[Verdict.PASS] >= 0.97 * 400
    assert launches < 8


def test_a_slowdown_at_the_margin_is_red_at_most_as_often_as_alpha():
    verdicts, _ = outcomes(0.01, n=1000)
    assert verdicts[Verdict.REGRESS] <= 0.02 * 1000


@pytest.mark.parametrize("true", [0.05, 0.10])
def test_a_real_slowdown_is_caught(true: float):
    verdicts, _ = outcomes(true)
    assert verdicts[Verdict.REGRESS] >= 0.97 * 400


def test_a_slowdown_of_the_size_to_detect_is_never_green():
    assert outcomes(0.05)[0][Verdict.PASS] == 0


def test_an_improvement_is_green():
    assert outcomes(-0.2, n=50)[0] == {Verdict.PASS: 50}


def test_a_canary_that_sings_comes_before_a_slowdown():
    decision = judge([0.1, 0.1001, 0.1, 0.0999, 0.1], [0.03, 0.0301, 0.03, 0.0299, 0.03], RULE, 0)
    assert decision.verdict == Verdict.INVALID
    assert decision.final
    assert "duplicate" in decision.reason


def test_a_canary_proven_to_be_off_by_next_to_nothing_spoils_no_session():
    tiny, more = ([x + 0.00001 * i for i in range(5)] for x in (0.0002, 0.0015))
    assert judge([0.0, 0.001, 0.0, -0.001, 0.0], tiny, RULE, 0).verdict == Verdict.PASS
    assert judge([0.0, 0.001, 0.0, -0.001, 0.0], more, RULE, 0).verdict == Verdict.INVALID
    exact = Rule(tolerate=0)
    assert judge([0.0, 0.001, 0.0, -0.001, 0.0], tiny, exact, 0).verdict == Verdict.INVALID


def test_too_much_noise_asks_for_more_launches_and_is_invalid_at_the_last():
    wild = [0.1, -0.1, 0.08, -0.09, 0.02] * 3
    early, last = judge(wild[:5], wild[:5], RULE, 0), judge(wild[:12], wild[:12], RULE, 1)
    assert (early.verdict, early.final) == (Verdict.INVALID, False)
    assert (last.verdict, last.final) == (Verdict.INVALID, True)
    assert "too noisy" in last.reason


def test_between_the_margins_is_inconclusive():
    wide = [0.03 + 1.5 * x for x in (0.02, -0.02, 0.03, -0.03, 0.01, -0.01, 0.02, -0.02, 0.03, -0.03, 0.0, 0.0)]
    quiet = [0.001, -0.001] * 6
    assert judge(wide, quiet, RULE, 1).verdict == Verdict.INCONCLUSIVE


def test_quick_is_one_look_with_all_of_alpha():
    rule = Rule(detect=0.10, looks=QUICK_LOOKS)
    verdicts, launches = outcomes(0.0, rule=rule)
    assert launches == 5
    assert verdicts[Verdict.PASS] >= 0.97 * 400
    assert outcomes(0.10, rule=rule)[0][Verdict.REGRESS] >= 0.9 * 400


def test_without_a_comparison_it_is_new_or_missing():
    assert without_comparison("x", baseline=False).verdict == Verdict.NEW
    assert without_comparison("x").verdict == Verdict.MISSING
    assert without_comparison("x").ratio is None


def test_margins_and_looks_that_make_no_sense_are_refused():
    for tolerate, detect in ((0.05, 0.05), (-0.01, 0.05), (0.01, math.nan)):
        with pytest.raises(UsageError, match="less than detect"):
            Rule(tolerate, detect)
    with pytest.raises(ValueError, match="alpha"):
        Rule(looks=(Look(5, 0.5),))


def test_a_green_result_tells_what_it_would_have_seen():
    decision = judge([0.001, -0.001, 0.002, -0.002, 0.0], [0.001, -0.001, 0.0, 0.0, 0.001], RULE, 0)
    assert decision.verdict == Verdict.PASS
    assert decision.detectable is not None
    assert 0.01 < decision.detectable < 0.05
    assert decision.to_dict()["verdict"] == "PASS"
