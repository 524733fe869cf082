"""How much is measured: iterations of a block, rounds of a launch."""

from __future__ import annotations

import pytest
from seatrial.core.errors import UsageError
from seatrial.devices.arms import Plan
from seatrial.devices.worker import Worker


@pytest.mark.parametrize(
    ("usual_ms", "k", "rounds"),
    [(0.01, 1000, 48), (1.0, 10, 48), (2.0, 5, 48), (4.0, 4, 24), (12.0, 4, 24), (20.0, 2, 12), (300.0, 1, 12)],
)
def test_short_blocks_are_interleaved_more_often_for_the_same_time(usual_ms: float, k: int, rounds: int):
    plan = Plan()
    assert plan.iterations(usual_ms) == k
    assert plan.split_rounds([k]) == rounds
    assert usual_ms * k * rounds >= 0.75 * plan.rounds * plan.block_ms


def test_the_slowest_arm_says_how_often_rounds_are_split():
    assert Plan().split_rounds([1000, 1]) == 12
    assert Plan().split_rounds([10, 4]) == 24
    assert Plan(splits=1).split_rounds([10]) == Plan(splits=1).split_rounds([4]) == 12
    assert Plan().split_rounds([]) == 12


def test_a_plan_without_a_split_is_refused():
    with pytest.raises(UsageError, match="0 splits"):
        Plan(splits=0)


def test_iterations_on_cold_caches_are_run_and_not_counted():
    class Counting:
        steps = 0

        def step(self) -> None:
            self.steps += 1

    worker = Worker()
    worker.session = Counting()
    assert len(worker.block(3, cold=2)["samples_ns"]) == 3
    assert worker.session.steps == 5
