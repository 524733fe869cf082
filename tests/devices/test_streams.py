"""Concurrent streams: threads that really run together, through the worker and through a bench."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from seatrial.core.errors import Unsupported
from seatrial.devices import streams
from seatrial.devices.arms import Plan
from seatrial.devices.bench import bench


class Sleeper:
    """A session whose step takes 5 ms and no processor, and fails after so many."""

    def __init__(self, steps: int = 1000) -> None:
        self.left = steps

    def step(self) -> None:
        if not self.left:
            raise RuntimeError("worn out")
        self.left -= 1
        time.sleep(0.005)


def test_streams_run_at_the_same_time():
    samples, rate = streams.loaded([Sleeper() for _ in range(4)], 0.2)
    assert rate > 2 * 200  # one alone does fewer than 200 in a second
    assert 4 <= len(samples) <= 4 * 41
    assert min(samples) >= 5_000_000


def test_every_stream_does_at_least_one_and_an_error_in_a_thread_is_not_lost():
    assert len(streams.loaded([Sleeper(), Sleeper()], 0.0)[0]) == 2
    with pytest.raises(RuntimeError, match="worn out"):
        streams.loaded([Sleeper(), Sleeper(3)], 0.2)
    with pytest.raises(Unsupported, match="--concurrency"):
        streams.opened(Sleeper(), 2)


def test_a_bench_under_load_counts_inferences_in_a_second(model):
    plan = replace(Plan(), launches=2, rounds=2, splits=1, block_ms=2, warm_s=0.01, streams_s=0.05)
    result = bench([model()], concurrency=[1, 2], plan=plan, seed=1)
    one, other = sorted(result.arms, key=lambda arm: arm.arm.streams or 0)
    assert (one.arm.streams, other.arm.streams) == (1, 2)
    for arm in (one, other):
        assert arm.ok, arm.reason
        assert arm.throughput is not None and arm.latency is not None
        expected = (arm.arm.streams or 0) * 1e3 / arm.samples_ms["mean_ms"]  # Little's law
        assert arm.throughput.centre == pytest.approx(expected, rel=0.5)
    notes = result.launches[0].arms[other.arm.name].notes
    assert all(note["rate_per_s"] > 0 for note in notes)
