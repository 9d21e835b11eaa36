"""Intervals without resampling hold their estimate and cover what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.stats.intervals import clustered_wilson, mean_of, wilson

outcomes = st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=12)


def flat(groups):
    """[[outcome, ...] of each cluster] -> values, clusters"""
    pairs = [(float(value), cluster) for cluster, values in enumerate(groups) for value in values]
    return [value for value, _ in pairs], [cluster for _, cluster in pairs]


@settings(deadline=None)
@given(n=st.integers(1, 10_000), data=st.data())
def test_wilson_holds_its_estimate_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    found, mirrored = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate == k / n
    assert math.isclose(found.low, 1 - mirrored.high, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_newcombes_table(k, n, low, high):
    """Newcombe 1998, table I, method 3."""
    assert wilson(k, n)[1:] == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_its_own_definition():
    z = 1.959963984540054
    found = wilson(17, 60)
    for bound in (found.low, found.high):
        assert abs(17 / 60 - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / 60), rel=1e-9)


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 4), (5, 4)])
def test_wilson_refuses_what_is_no_rate(k, n):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        wilson(k, n)


@settings(deadline=None)
@given(groups=outcomes)
def test_clustered_wilson_is_never_narrower_than_independent_trials(groups):
    values, clusters = flat(groups)
    found, independent = clustered_wilson(values, clusters), wilson(sum(values), len(values))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.estimate == pytest.approx(independent.estimate)
    assert found.low <= independent.low + 1e-12
    assert found.high >= independent.high - 1e-12


def test_clustered_wilson_of_single_values_is_wilson():
    assert clustered_wilson([1.0, 0.0, 1.0], "abc") == wilson(2, 3)


def test_equal_values_in_a_cluster_count_once():
    values, clusters = flat([[True] * 4] * 5 + [[False] * 4] * 5)
    copies, once = clustered_wilson(values, clusters), wilson(5, 10)
    assert copies.low < once.low < once.high < copies.high  # a little wider: Student's t for few clusters
    assert copies.high - copies.low < 1.2 * (once.high - once.low)


def test_clustered_wilson_covers_the_true_rate():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        rates = rng.beta(3.5, 6.5, size=20)
        drawn = rng.random((20, 4)) < rates[:, None]
        found = clustered_wilson(*flat(drawn.tolist()))
        hits += found.low <= 0.35 <= found.high
    assert hits >= 276


def test_the_mean_of_one_interval_is_itself_and_of_equal_ones_narrower():
    one = wilson(3, 10)
    assert mean_of([one]) == pytest.approx(one)
    four = mean_of([one] * 4)
    assert four.estimate == pytest.approx(one.estimate)
    assert four.estimate - four.low == pytest.approx((one.estimate - one.low) / 2)
    assert four.high - four.estimate == pytest.approx((one.high - one.estimate) / 2)
    with pytest.raises(ValueError, match="no estimates"):
        mean_of([])


def test_the_mean_of_six_tasks_covers_the_true_mean():
    rng = np.random.default_rng(1)
    rates = np.array([0.98, 0.7, 0.4, 0.85, 0.1, 0.25])
    hits = 0
    for _ in range(400):
        found = mean_of([wilson(int(k), 12) for k in rng.binomial(12, rates)])
        hits += found.low <= rates.mean() <= found.high
    assert hits >= 0.93 * 400
