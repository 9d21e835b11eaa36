"""Best-of-k from one pool is the mean over all its subsets, whatever is equal, missing or large."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genloop.stats.best_of_k import all_below, best_of_k, ceiling

scores_with_ties = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), min_size=1, max_size=8)


def enumerated(scores: list[float], values: list[float], k: int) -> float:
    """The mean over all subsets of the mean value of their highest scores."""
    known = [-math.inf if math.isnan(score) else score for score in scores]
    found = []
    for subset in combinations(range(len(scores)), k):
        best = max(known[i] for i in subset)
        found.append(np.mean([values[i] for i in subset if known[i] == best]))
    return float(np.mean(found))


@given(scores=scores_with_ties, data=st.data())
def test_every_k_is_the_mean_over_all_subsets_with_ties_split(scores, data):
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(scores), max_size=len(scores)))
    expected = [enumerated(scores, values, k) for k in range(1, len(scores) + 1)]
    assert best_of_k(scores, values) == pytest.approx(expected)


@given(values=st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_ceiling_is_the_chance_that_any_is_right(values):
    n, wrong = len(values), values.count(False)
    assert ceiling(values) == pytest.approx([1 - math.comb(wrong, k) / math.comb(n, k) for k in range(1, n + 1)])


@given(scores=scores_with_ties, seed=st.integers(0, 2**32 - 1))
def test_no_judge_is_above_the_ceiling_and_the_order_of_a_pool_does_not_matter(scores, seed):
    rng = np.random.default_rng(seed)
    values, order = rng.integers(0, 2, len(scores)), rng.permutation(len(scores))
    found = best_of_k(scores, values)
    assert (found <= ceiling(values) + 1e-12).all()
    assert found == pytest.approx(best_of_k(np.array(scores)[order], values[order]))


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_one_candidate_is_the_mean_and_all_candidates_are_the_best(values):
    found = best_of_k(values, values)
    assert found[0] == pytest.approx(np.mean(values))
    assert found[-1] == pytest.approx(max(values))
    assert (np.diff(found) >= -1e-12).all()


def test_a_judge_that_says_the_same_of_all_gains_nothing():
    assert best_of_k([0.5] * 6, [1, 0, 0, 1, 0, 0]) == pytest.approx([1 / 3] * 6)


def test_the_weights_are_the_binomials_also_of_a_large_pool():
    n = 2048
    weights = np.diff(all_below(n), axis=1)
    assert weights.sum(axis=1) == pytest.approx(np.ones(n))
    for k, i in [(1, 1), (2, 2048), (20, 1000), (1024, 1500), (2048, 2048)]:
        assert weights[k - 1, i - 1] == pytest.approx(math.comb(i - 1, k - 1) / math.comb(n, k), rel=1e-9)


def test_a_pool_gives_without_bias_what_drawing_k_anew_gives():
    """Candidates are right at a rate of 0.3, and the judge's scores are two normals one apart."""
    rng = np.random.default_rng(0)
    right = rng.random((4000, 12)) < 0.3
    scores = rng.normal(size=right.shape) + right
    pooled = np.mean([best_of_k(s, v, 4) for s, v in zip(scores, right)], axis=0)
    drawn = [right[np.arange(4000), scores[:, :k].argmax(axis=1)] for k in range(1, 5)]
    assert pooled == pytest.approx([found.mean() for found in drawn], abs=0.02)
    assert abs(pooled[0] - 0.3) < 0.01


@pytest.mark.parametrize(
    ("scores", "values", "max_k", "message"),
    [
        ([0.1], [1, 0], None, "found 1 and 2"),
        ([0.1, 0.2], [1, 0], 3, "2 candidates .*found 3"),
        ([0.1, 0.2], [1, 0], 0, "found 0"),
        ([], [], None, "found 0"),
    ],
)
def test_what_is_no_pool_is_refused(scores, values, max_k, message):
    with pytest.raises(ValueError, match=message):
        best_of_k(scores, values, max_k)
