"""The slow end: what a percentile needs, and shares beyond a deadline against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference
from seatrial.core.errors import UsageError
from seatrial.devices import tails


def test_a_percentile_needs_the_samples_of_which_two_lie_beyond_it():
    for percent, needed in ((50, 11), (90, 64), (99, 662), (99.9, 6636)):
        assert tails.samples_needed(percent) == needed
        assert reference.binom.cdf(1, needed, 1 - percent / 100) <= 0.01
        assert reference.binom.cdf(1, needed - 1, 1 - percent / 100) > 0.01


def test_a_percentile_without_enough_samples_is_not_given():
    few, enough = (tails.percentiles([1e6] * n, (50, 99))[1] for n in (661, 662))
    assert (few.ms, few.needed, few.samples) == (None, 662, 661)
    assert enough.ms == 1.0


def test_a_share_that_is_alike_in_all_launches_has_nearly_the_binomial_interval():
    counts, sizes = [9, 10, 11, 10] * 25, [1000] * 100
    found = tails.share_over_launches(counts, sizes, 0.98)
    exact = reference.binomtest(sum(counts), sum(sizes)).proportion_ci(0.98, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), rel=0.05)
    uneven = tails.share_over_launches([0, 0, 0, 40] * 25, sizes, 0.98)
    assert uneven.high - uneven.low > 3 * (found.high - found.low)
    few = tails.share_over_launches([100] * 3, [10_000] * 3, 0.98)  # as many, but who knows how launches scatter
    assert few.high - few.low > 2 * (found.high - found.low)


def test_one_launch_says_nothing_and_none_late_is_no_proof_of_none():
    assert tails.share_over_launches([5], [1000], 0.98).high == 1.0
    none = tails.share_over_launches([0] * 6, [24] * 6, 0.98)
    assert none.low == 0.0
    assert 0.03 < none.high < 0.1


@pytest.mark.parametrize("burst", [1, 4])
def test_a_word_about_a_deadline_is_rarely_wrong_also_where_late_ones_come_in_bursts(burst):
    rng, wrong = np.random.default_rng(1), {"LATE": 0, "ON TIME": 0}
    for _ in range(300):
        launches = [np.repeat(np.where(rng.random(480 // burst) < 0.02, 40e6, 20e6), burst) for _ in range(6)]
        for allowed, word in ((0.021, "LATE"), (0.019, "ON TIME")):  # 2 % are late in truth
            wrong[word] += tails.late(launches, 33.0, allowed, 0.98).verdict == word
    assert max(wrong.values()) <= 9, wrong


def test_what_is_far_from_allowed_is_proven():
    rng = np.random.default_rng(2)
    launches = [np.where(rng.random(480) < 0.2, 40e6, 20e6) for _ in range(6)]
    assert tails.late(launches, 33.0, 0.01, 0.98).verdict == "LATE"
    assert tails.late(launches, 33.0, 0.5, 0.98).verdict == "ON TIME"
    assert tails.late(launches, 33.0, 0.2, 0.98).verdict == "INCONCLUSIVE"
    assert tails.late(launches, 50.0, 0.01, 0.98).verdict == "ON TIME"


@pytest.mark.parametrize(
    "asked", [{"deadline_ms": 0.0}, {"allowed": 1.0}, {"percents": (0.0,)}, {"percents": (100.0,)}]
)
def test_nonsense_is_refused(asked):
    with pytest.raises(UsageError):
        tails.Tails(**asked)
