"""Statistics, held against scipy where it has them, else against simulated truth."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy import stats as scipy_stats
from seatrial.devices import stats

RNG = np.random.default_rng(7)


def test_the_t_interval_and_test_are_scipys():
    values = RNG.normal(0.01, 0.02, 9)
    wanted = scipy_stats.ttest_1samp(values, 0.0)
    bounds = wanted.confidence_interval(0.98)
    found = stats.t_interval(values, 0.98)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high))
    assert stats.t_test(values) == pytest.approx(wanted.pvalue)


def test_one_launch_knows_nothing():
    found = stats.t_interval([0.1])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert stats.t_test([0.1]) == 1.0
    assert found.to_dict()["high"] is None


def test_hodges_lehmann_is_the_median_of_all_pair_means():
    values = list(RNG.standard_cauchy(11))
    means = [(a + b) / 2 for a, b in combinations_with_replacement(values, 2)]
    assert stats.hodges_lehmann(values) == pytest.approx(np.median(means))


def test_a_disturbed_block_hardly_moves_a_launch():
    rng = np.random.default_rng(1)
    a = [list(rng.normal(1e6, 1e4, 20)) for _ in range(12)]
    b = [list(rng.normal(1.1e6, 1e4, 20)) for _ in range(12)]
    b[3] = [x * 5 for x in b[3]]
    assert stats.launch_effect(a, b) == pytest.approx(math.log(1.1), abs=0.01)


def test_rounds_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="pair up"):
        stats.launch_effect([[1.0]], [[1.0], [2.0]])


def test_the_median_interval_is_scipys_where_that_has_one():
    values = RNG.lognormal(size=12)
    bounds = scipy_stats.quantile_test(values, q=0.0, p=0.5).confidence_interval(0.95)
    found = stats.median_interval(values, 0.95)
    assert (found.low, found.high) == (bounds.low, bounds.high)


@pytest.mark.parametrize("n", [3, 5, 6, 12, 25])
def test_the_median_interval_covers_as_often_as_it_says(n: int):
    rng = np.random.default_rng(n)
    found = [stats.median_interval(rng.exponential(size=n)) for _ in range(2000)]
    covered = np.mean([f.low <= math.log(2) <= f.high for f in found])
    assert covered == pytest.approx(found[0].confidence, abs=0.02)
    assert found[0].confidence >= 0.95 or n < 6


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


@pytest.mark.parametrize(("launches", "alpha"), [(5, 0.002), (12, 0.008)])
def test_the_detectable_effect_is_proven_nine_times_in_ten(launches: int, alpha: float):
    rng, spread, margin = np.random.default_rng(launches), 0.004, math.log1p(0.01)
    effect = stats.detectable_effect(spread, launches, alpha, margin)
    sessions = rng.normal(effect, spread, (4000, launches))
    proven = [stats.t_interval(s, 1 - 2 * alpha).low > margin for s in sessions]
    assert np.mean(proven) == pytest.approx(0.9, abs=0.02)
    assert stats.detectable_effect(math.nan, 1, alpha, margin) == math.inf


def test_p99_is_only_told_from_enough_samples():
    assert stats.percentiles([1e6] * 661)["p99_ms"] is None
    assert stats.percentiles([1e6] * 662)["p99_ms"] == 1.0


def test_an_unknown_block_statistic_is_refused():
    assert stats.block_stat([4, 1, 2, 3], "lower_quartile") == 1.75
    with pytest.raises(ValueError, match="lower_quartile"):
        stats.block_stat([1.0], "minimum")


@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 20), (20, 20), (199, 200)])
def test_a_share_has_the_exact_binomial_interval(count: int, n: int):
    wanted = scipy_stats.binomtest(count, n).proportion_ci(0.95, "exact")
    found = stats.share_interval(count, n)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert found.centre == count / n
