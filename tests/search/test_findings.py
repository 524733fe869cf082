"""What is read out of trials and launches: latency, front, winners, defaults, reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from seatrial.devices.launches import ArmRun, Launch
from seatrial.search.candidate import Candidate
from seatrial.search.findings import Findings, quality
from seatrial.search.race import REFERENCE
from seatrial.search.trials import Trial

FAST = Candidate.of("onnxruntime", "fp32", {"threads": 1, "graph_optimization": "extended"})
PLAIN = Candidate.of("onnxruntime", "fp32", {"threads": 1, "graph_optimization": "all"})
TWO = Candidate.of("onnxruntime", "fp32", {"threads": 2, "graph_optimization": "all"})
INT8 = Candidate.of("onnxruntime", "int8", {"threads": 1, "graph_optimization": "all"})
OTHER = Candidate.of("openvino", "fp32", {"threads": 1, "inference_precision": "f32"})


def launch(index: int, ms: Mapping[Candidate | str, float | None]) -> Launch:
    """A launch with steady arms; None is an arm that failed."""
    arms = {}
    for who, time in ms.items():
        name = who if isinstance(who, str) else who.id
        ok = ArmRun(name, name, blocks=[[round((time or 0) * 1e6)] * 3] * 4, opened={"load_ms": 1.0, "first_ms": 1.0})
        arms[name] = ok if time is not None else ArmRun(name, name, "signal", "killed by SIGSEGV")
    return Launch(index, "0", [], arms, 0.0)


def trial(candidate: Candidate, **facts: Any) -> Trial:
    """A trial that is fine unless told otherwise."""
    parity = {"agreement": facts.pop("agreement", 1.0), "sqnr_db": facts.pop("sqnr_db", 120.0)}
    accuracy = facts.pop("accuracy", None)
    found = None if accuracy is None else {"found": accuracy, "reference": 0.9}
    proof = {"parity": parity, "accuracy": found, "placement": {"precision": candidate.precision}, "settings": {}}
    return Trial(candidate, **{"status": "ok", "proof": proof, "size_bytes": 1000, **facts})


def findings(trials: Sequence[Trial], raced: Sequence[Launch], confirmed: Sequence[Launch] = ()) -> Findings:
    return Findings({t.id: t for t in trials}, raced, confirmed)


def test_latency_is_the_reference_times_the_ratio() -> None:
    """A launch in a busy hour, where all takes twice as long, says the same of a candidate."""
    raced = [
        launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 8.0}),
        launch(1, {REFERENCE: 20.0, FAST: 16.0}),
        launch(2, {REFERENCE: 10.0, FAST: 8.0}),
    ]
    found = findings([trial(PLAIN), trial(FAST)], raced).latency
    assert found[FAST.id].ms == pytest.approx(8.0, rel=1e-3)
    assert found[FAST.id].launches == 3
    assert found[FAST.id].low_ms == pytest.approx(8.0, rel=1e-3)
    assert found[PLAIN.id].low_ms is None, "one launch has no interval"


def test_latency_comes_from_the_confirmation_where_it_was_made() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 8.0})]
    confirmed = [launch(i, {PLAIN: 12.0, FAST: 9.0 + i / 10}) for i in range(6)]
    found = findings([trial(PLAIN), trial(FAST)], raced, confirmed).latency
    assert found[PLAIN.id].ms == pytest.approx(12.0)
    assert found[FAST.id].ms == pytest.approx(9.25)
    assert found[FAST.id].low_ms == pytest.approx(9.0)
    assert found[FAST.id].high_ms == pytest.approx(9.5)


def test_those_that_were_only_raced_are_brought_to_the_scale_of_the_confirmation() -> None:
    """The confirmation ran in an hour twice as slow: who lost the race must not look faster than its winner."""
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 8.0, TWO: 9.0})]
    confirmed = [launch(i, {PLAIN: 20.0, FAST: 16.0}) for i in range(6)]
    found = findings([trial(PLAIN), trial(FAST), trial(TWO)], raced, confirmed)
    assert found.latency[TWO.id].ms == pytest.approx(18.0, rel=1e-3)
    assert found.able[0].id == FAST.id


def test_the_front_holds_who_is_faster_or_better() -> None:
    trials = [trial(INT8, agreement=0.9), trial(FAST, agreement=0.95), trial(PLAIN, agreement=0.95), trial(OTHER)]
    raced = [launch(0, {REFERENCE: 10.0, INT8: 4.0, FAST: 8.0, PLAIN: 9.0, OTHER: 20.0})]
    assert findings(trials, raced).front == [INT8.id, FAST.id, OTHER.id]


def test_quality_is_accuracy_then_agreement_then_decibels_up_to_the_bar() -> None:
    assert quality(trial(FAST, accuracy=0.8, agreement=1.0)) == 0.8
    assert quality(trial(FAST, agreement=0.9)) == 0.9
    assert quality(trial(FAST, agreement=None, sqnr_db=50.0)) == 50.0
    assert quality(trial(FAST, agreement=None, sqnr_db=140.0)) == quality(trial(FAST, agreement=None, sqnr_db=120.0))
    assert quality(trial(FAST, agreement=None, sqnr_db=None)) == 0.0


def test_the_fastest_feasible_of_each_target_wins() -> None:
    trials = [trial(PLAIN), trial(FAST, status="infeasible", reason="accuracy dropped"), trial(INT8), trial(OTHER)]
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 1.0, INT8: 9.0, OTHER: 30.0})]
    found = findings(trials, raced)
    assert found.winners == {"onnxruntime": INT8.id, "openvino": OTHER.id, "best": INT8.id}
    assert found.reason(found.trials[FAST.id]) == "accuracy dropped"


def test_the_confirmation_may_overturn_the_race() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 9.9, TWO: 9.95})]
    confirmed = [launch(i, {PLAIN: 10.0, FAST: 10.2}) for i in range(3)]
    found = findings([trial(PLAIN), trial(FAST), trial(TWO)], raced, confirmed)
    assert found.winners["onnxruntime"] == PLAIN.id, "TWO was raced, not confirmed: it can't be chosen by its race"


def test_finalists_are_the_front_the_winners_and_the_defaults() -> None:
    trials = [trial(PLAIN), trial(FAST), trial(TWO), trial(INT8, agreement=0.9), trial(OTHER)]
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 9.0, TWO: 11.0, INT8: 12.0, OTHER: 30.0})]
    found = findings(trials, raced)
    assert set(found.finalists) == {FAST.id, PLAIN.id, INT8.id, OTHER.id}, "TWO is a slower default of its kind"


def test_defaults_are_taken_at_their_fastest_number_of_threads() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, TWO: 6.0, FAST: 5.0})]
    assert findings([trial(PLAIN), trial(FAST), trial(TWO)], raced).defaults == [TWO.id]


def test_one_that_failed_while_it_was_timed_is_never_chosen() -> None:
    raced = [
        launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 5.0}),
        launch(1, {REFERENCE: 10.0, PLAIN: 10.0, FAST: None}),
    ]
    found = findings([trial(PLAIN), trial(FAST)], raced)
    assert found.winners["best"] == PLAIN.id
    facts = found.facts(found.trials[FAST.id])
    assert facts["status"] == "failed"
    assert "SIGSEGV" in facts["reason"]


def test_where_no_finalist_lasts_the_next_of_that_target_is_chosen() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 5.0, OTHER: 7.0})]
    confirmed = [launch(0, {FAST: None, OTHER: 7.0})]
    found = findings([trial(PLAIN), trial(FAST), trial(OTHER)], raced, confirmed)
    assert found.winners == {"openvino": OTHER.id, "onnxruntime": PLAIN.id, "best": OTHER.id}
    assert all(found.facts(t)["reason"] is not None for t in found.trials.values() if t.id != OTHER.id)


def test_nobody_is_chosen_where_all_failed() -> None:
    found = findings([trial(PLAIN)], [launch(0, {REFERENCE: 10.0, PLAIN: None})])
    assert found.winners == {}
    assert "SIGSEGV" in str(found.reason(found.trials[PLAIN.id]))


def test_reasons_name_the_winner_and_the_ratio() -> None:
    times = {REFERENCE: 10.0, PLAIN: 10.0, FAST: 5.0, OTHER: 20.0, INT8: 9.0}
    raced = [
        launch(i, {who: ms * (1 + i / 1000) if who == PLAIN else ms for who, ms in times.items()}) for i in range(3)
    ]
    found = findings([trial(PLAIN), trial(FAST), trial(OTHER), trial(INT8, status="failed", reason="no memory")], raced)
    reasons = {t.candidate: found.reason(t) for t in found.trials.values()}
    assert reasons[FAST] is None, "the best has nothing to explain"
    assert str(reasons[PLAIN]).startswith("2.002 [")
    assert str(reasons[PLAIN]).endswith("the time of onnxruntime fp32 × 1 graph_optimization=extended")
    assert str(reasons[OTHER]).endswith("the fastest on its own runtime")
    assert reasons[INT8] == "no memory"


def test_a_tie_is_called_a_tie() -> None:
    raced = [launch(i, {REFERENCE: 10.0, PLAIN: 10.0 + sign / 10, FAST: 10.0}) for i, sign in enumerate((1, -1, 1))]
    found = findings([trial(PLAIN), trial(FAST)], raced)
    assert "a tie with" in str(found.reason(found.trials[PLAIN.id]))


def test_comparisons_are_the_best_over_each_default_from_the_confirmation() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0, FAST: 8.0, OTHER: 20.0})]
    confirmed = [launch(i, {PLAIN: 10.0 + i / 100, FAST: 8.0, OTHER: 20.0 + i / 100}) for i in range(3)]
    trials = [trial(PLAIN), trial(FAST), trial(OTHER)]
    assert findings(trials, raced).comparisons() == [], "the race that chose it can't also praise it"
    found = {each.a: each for each in findings(trials, raced, confirmed).comparisons()}
    assert {each.b for each in found.values()} == {FAST.id}
    assert found[PLAIN.id].ratio == pytest.approx(0.8, rel=2e-3)
    assert found[OTHER.id].high < 0.42
    assert math.isfinite(found[OTHER.id].low)
    # Of one launch, as a kill leaves some, nothing is said.
    once = [
        launch(0, {FAST: 8.0, OTHER: 20.0}),
        launch(1, {PLAIN: 10.0, FAST: 8.0}),
        launch(2, {PLAIN: 10.1, FAST: 8.0}),
    ]
    assert [each.a for each in findings(trials, raced, once).comparisons()] == [PLAIN.id]


def test_facts_hold_what_can_be_selected_by() -> None:
    raced = [launch(0, {REFERENCE: 10.0, PLAIN: 10.0})]
    found = findings([trial(PLAIN, accuracy=0.8, load_ms=3.0)], raced)
    facts = found.facts(found.trials[PLAIN.id])
    wanted = {"accuracy": 0.8, "agreement": 1.0, "sqnr_db": 120.0, "size_bytes": 1000, "load_ms": 3.0, "chosen": True}
    assert {key: facts[key] for key in wanted} == wanted
    assert facts["settings"] == {"threads": 1, "graph_optimization": "all"}
