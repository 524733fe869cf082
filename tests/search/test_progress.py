"""The lines of a search under way: counts, fronts, the best so far and the time left are what came."""

from __future__ import annotations

from pathlib import Path

import pytest
from seatrial.search.candidate import Candidate
from seatrial.search.choose import Bound
from seatrial.search.goals import Goals
from seatrial.search.progress import Lasting, Progress
from seatrial.search.roster import Tried
from seatrial.search.samplers.base import Known

Shown = list[tuple[Candidate, Known | None]]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def goals(*bounds: str) -> Goals:
    return Goals(("accuracy", "latency_ms"), tuple(map(Bound.read, bounds)), {}, Path())


def model(name: str, accuracy: float, **ms: float) -> tuple[Tried, Shown]:
    """A model that was deployed in fp32 on some targets."""
    made = {t: Candidate.of(t, "fp32", {"threads": 1}, name) for t in ms}
    one = Tried(name, {"width": 8}, "ok", accuracy=accuracy, times={made[t].id: ms[t] for t in ms})
    costs = {t: {"accuracy": 1 - accuracy, "latency_ms": ms[t]} for t in ms}
    return one, [(made[t], Known({"width": 8}, costs[t])) for t in ms]


def test_a_line_says_what_it_was_and_how_things_stand(clock: Clock) -> None:
    progress = Progress(goals(), 10, None, clock)
    progress.begin()
    clock.now += 60
    line = progress.line(*model("aaaaaaaaaa", 0.9, onnxruntime=2.0, tflite=1.0))
    assert isinstance(line, Lasting)
    assert line == (
        "model 1 of 10: width 8, accuracy 90.0%, tflite fp32 1 ms, on the front of onnxruntime, tflite; "
        "best accuracy 90.0% (aaaaaaaa tflite fp32); fronts 1 + 1; 0 failed; about 9 min to the last model"
    )


def test_a_front_loses_those_that_are_surpassed_and_not_those_that_are_not(clock: Clock) -> None:
    progress = Progress(goals(), 10, None, clock)
    progress.line(*model("slow", 0.8, tflite=3.0))
    progress.line(*model("exact", 0.95, tflite=5.0))
    line = progress.line(*model("better", 0.9, tflite=2.0))
    assert "on the front of tflite" in line and "fronts 2;" in line, "slow is gone, exact stays"
    assert "best accuracy 95.0% (exact tflite fp32)" in line
    line = progress.line(*model("behind", 0.85, tflite=4.0))
    assert "on the front" not in line and "fronts 2;" in line


def test_who_breaks_a_constraint_is_on_no_front_and_not_the_best(clock: Clock) -> None:
    progress = Progress(goals("latency_ms <= 3"), 10, None, clock)
    line = progress.line(*model("slow", 0.95, tflite=4.0))
    assert "front" not in line and "best" not in line and "tflite fp32 4 ms" in line
    assert "best accuracy 80.0% (fast tflite fp32)" in progress.line(*model("fast", 0.8, tflite=2.0))


def test_failures_are_counted_with_their_reason(clock: Clock) -> None:
    progress = Progress(goals(), 10, None, clock)
    assert progress.line(Tried("a", {}, "failed", "out of memory"), []) == (
        "model 1 of 10 failed: out of memory; 1 failed"
    )
    one, shown = model("b", 0.9, tflite=1.0)
    failed = [(candidate, Known({}, failed=True)) for candidate, _ in shown]
    assert "fronts" not in progress.line(one, failed), "a deployment that failed is on no front"
    assert progress.failed == 1, "the model itself did not fail"


def test_the_time_left_is_that_of_this_run_alone_and_ends_with_the_minutes(clock: Clock) -> None:
    progress = Progress(goals(), 10, None, clock)
    for name in "abcd":  # from an earlier run
        progress.line(*model(name, 0.9, tflite=1.0))
    assert progress.minutes_left() is None
    progress.begin()
    assert progress.minutes_left() is None, "none of this run yet"
    clock.now += 240
    progress.line(*model("e", 0.9, tflite=1.0))
    assert progress.minutes_left() == pytest.approx(4 * 5)
    progress.minutes = 10
    assert progress.minutes_left() == pytest.approx(6)
