"""Intervals hold their estimate, shrink with data, cover what they promise, and depend on the seed alone."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.stats.intervals import (
    Interval,
    cluster_bootstrap,
    clustered_wilson,
    mcnemar,
    mean_of,
    paired_bootstrap,
    wilson,
)

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


@settings(deadline=None)
@given(groups=outcomes, seed=st.integers(0, 2**32))
def test_the_bootstrap_depends_on_its_seed_alone_and_holds_its_estimate(groups, seed):
    values, clusters = flat(groups)
    found = cluster_bootstrap(values, clusters, seed, num_resamples=50)
    assert found == cluster_bootstrap(values, clusters, seed, num_resamples=50)
    assert found.estimate == pytest.approx(np.mean(values))
    assert 0 <= found.low <= found.high <= 1


def test_the_bootstrap_of_tags_is_the_mean_of_their_means():
    values, clusters, tags = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0], [0, 0, 1, 2, 3, 4], list("aaabbb")
    found = cluster_bootstrap(values, clusters, 0, tags=tags)
    assert found.estimate == pytest.approx((1 + 1 / 3) / 2)
    assert found.low >= 0.5  # every resample of tag a is 1


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_clusters():
    rng = np.random.default_rng(2)
    values = (rng.random(2000) < 0.3).astype(float)
    found = cluster_bootstrap(values.tolist(), range(2000), 3)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert found == pytest.approx(Interval(values.mean(), values.mean() - half, values.mean() + half), abs=0.002)


def test_memory_is_bounded_and_changes_nothing(monkeypatch):
    values, clusters = flat([[True, False], [True], [False] * 3, [True] * 2])
    whole = cluster_bootstrap(values, clusters, 5)
    monkeypatch.setattr("genloop.stats.intervals.MAX_DRAWS", 64)
    assert cluster_bootstrap(values, clusters, 5) == whole


def test_pairs_take_out_what_they_share():
    rng = np.random.default_rng(4)
    hard = rng.random(100)
    before = (rng.random(100) < hard).astype(float)
    after = np.maximum(before, rng.random(100) < 0.2)
    found = paired_bootstrap(after.tolist(), before.tolist(), range(100), 0)
    assert found.estimate == pytest.approx(after.mean() - before.mean())
    assert found.low > 0
    alone = cluster_bootstrap(after.tolist(), range(100), 0)
    assert found.high - found.low < alone.high - alone.low


@pytest.mark.parametrize(("gain", "num_pairs"), [(0.0, 1), (0.0, 10), (1.0, 1), (1.0, 4), (-1.0, 12), (0.5, 3)])
@pytest.mark.parametrize("num_tags", [1, 3])
def test_pairs_that_all_differ_alike_still_leave_doubt(gain, num_pairs, num_tags):
    before = [0.0 if gain >= 0 else 1.0] * num_pairs * num_tags
    after = [value + gain for value in before]
    tags = [i % num_tags for i in range(len(before))]
    found = paired_bootstrap(after, before, range(len(before)), 0, tags=tags)
    assert found.estimate == gain
    assert -1 <= found.low <= gain <= found.high <= 1
    assert found.high - found.low > 0.5 / num_pairs


def test_the_interval_of_few_pairs_covers_the_true_difference():
    rng = np.random.default_rng(5)
    hits = 0
    for seed in range(200):
        after, before = (rng.random(5) < 0.2).astype(float), (rng.random(5) < 0.1).astype(float)
        found = paired_bootstrap(after.tolist(), before.tolist(), range(5), seed, num_resamples=200)
        hits += found.low <= 0.1 <= found.high
    assert hits >= 0.72 * 200  # 0.62 of them when equal pairs had no width


def test_swapped_pairs_give_the_opposite():
    a, b, clusters = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0, 0, 1, 2]
    there, back = paired_bootstrap(a, b, clusters, 9), paired_bootstrap(b, a, clusters, 9)
    assert there == pytest.approx(Interval(-back.estimate, -back.high, -back.low))


@pytest.mark.parametrize(("values", "clusters"), [([], []), ([1.0], [0, 1])])
def test_values_without_clusters_are_refused(values, clusters):
    with pytest.raises(ValueError, match="equally many and not empty"):
        cluster_bootstrap(values, clusters, 0)
    with pytest.raises(ValueError, match="equally many"):
        paired_bootstrap([1.0], [1.0, 0.0], [0], 0)


@settings(deadline=None)
@given(b=st.integers(0, 60), c=st.integers(0, 60))
def test_mcnemar_is_the_two_sided_sign_test(b, c):
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar(-1, 2)
