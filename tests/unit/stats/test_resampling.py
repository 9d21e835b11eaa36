"""The bootstrap holds its estimate, depends on its seed alone, and is never certain where nothing differs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.stats.intervals import Interval
from genloop.stats.pace import pace_of
from genloop.stats.resampling import bootstrap, cluster_bootstrap, paired_bootstrap, resampled_weights

outcomes = st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=12)


def flat(groups):
    """[[outcome, ...] of each cluster] -> values, clusters"""
    pairs = [(float(value), cluster) for cluster, values in enumerate(groups) for value in values]
    return [value for value, _ in pairs], [cluster for _, cluster in pairs]


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
    monkeypatch.setattr("genloop.stats.resampling.MAX_CELLS", 64)
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


def test_every_stratum_keeps_its_clusters_and_has_a_stream_of_its_own():
    strata = np.array([0, 1, 0, 1, 1])
    (weights,) = resampled_weights(strata, 3, 40)
    assert weights.shape == (40, 5)
    assert (weights[:, strata == 0].sum(axis=1) == 2).all() and (weights[:, strata == 1].sum(axis=1) == 3).all()
    (alone,) = resampled_weights(strata[strata == 0], 3, 40)
    assert (weights[:, strata == 0] == alone).all()


def test_an_average_of_weights_is_one_whatever_is_drawn():
    weights = np.concatenate(list(resampled_weights(np.zeros(7, dtype=int), 0, 4000)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    assert weights.var(axis=0) == pytest.approx(np.full(7, 6 / 7), abs=0.08)


def test_only_numbers_without_spread_take_the_extended_statistic():
    values = np.array([[1.0, 0.2], [1.0, 0.4], [1.0, 0.9]])
    more = np.vstack([values, [[0.0, 0.0], [1.0, 1.0]]])
    strata = np.zeros(3, dtype=int)
    plain = bootstrap(lambda w: w @ values / 3, strata, 0)
    wide = bootstrap(lambda w: w @ values / 3, strata, 0, extended=lambda w: w @ more / 5)
    assert plain[0] == pytest.approx((1, 1, 1)) and plain[1] == wide[1]
    assert wide[0].low < 0.7 and wide[0].high == 1


def test_resamples_in_which_a_number_is_not_defined_are_left_out():
    def share(weights):
        with np.errstate(invalid="ignore", divide="ignore"):
            return weights[:, 0] / (weights[:, 0] + weights[:, 1])

    (found,) = bootstrap(share, np.zeros(4, dtype=int), 0, num_resamples=500)
    assert found.estimate == 0.5 and 0 <= found.low < found.high <= 1


@pytest.mark.filterwarnings("error")
def test_a_unit_without_items_counts_for_its_seconds_alone():
    estimate, low, high = pace_of([0, 5, 4], [1, 10, 8])
    assert estimate == pytest.approx(19 / 9) and 0 < low < estimate < high < 10
