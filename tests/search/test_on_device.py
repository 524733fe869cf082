"""What launches tell of themselves, with what chance makes of it: no clock, no runtime."""

from __future__ import annotations

import math

import numpy as np
import pytest
from seatrial.devices.launches import ArmRun
from seatrial.search.on_device import medians

RNG = np.random.default_rng(5)


def launches(values_ms: np.ndarray, name: str = "a") -> list[ArmRun]:
    """One run each, all of whose times are its value."""
    return [ArmRun(name, name, blocks=[[round(1e6 * ms)] * 3], peak_rss_bytes=round(1e9 * ms)) for ms in values_ms]


@pytest.mark.parametrize(("measure", "unit"), [("latency_p95_ms", 1.0), ("peak_memory_bytes", 1e9)])
def test_the_interval_over_launches_covers_as_often_as_it_says(measure: str, unit: float) -> None:
    truth = 2.0 * unit
    found = [medians(measure, launches(2.0 * np.exp(RNG.normal(0, 0.1, 6))))["a"] for _ in range(400)]
    assert all(x.n == 6 and x.low < x.value < x.high for x in found)  # type: ignore[operator]
    assert 0.92 <= np.mean([x.low < truth < x.high for x in found]) <= 0.98  # type: ignore[operator]


def test_a_bound_on_it_is_met_with_a_probability() -> None:
    found = medians("latency_p95_ms", launches(np.array([4.0, 4.4, 4.8, 5.2])))["a"]
    assert found.value == pytest.approx(4.6)
    assert found.probability("<=", found.value) == pytest.approx(0.5)
    assert 0.5 < found.probability("<=", 5.0) < 0.95, "a point estimate below the limit is no certainty"
    assert found.probability("<=", 8.0) > 0.99


def test_one_launch_has_no_interval_and_a_failed_one_does_not_count() -> None:
    bad = ArmRun("a", "a", "oom", "no memory", blocks=[[9]])
    found = medians("latency_p95_ms", [*launches(np.array([3.0])), bad, *launches(np.array([1.0, 1.0]), "b")])
    assert (found["a"].value, found["a"].low, found["a"].high, found["a"].n) == (3.0, None, None, 1)
    assert found["b"].n == 2 and math.isclose(found["b"].low or 0, 1.0) and found["b"].probability("<=", 1.0) == 1.0
