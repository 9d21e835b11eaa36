"""Gains over a curve: interpolation is linear, gains are paired, their intervals cover what they promise."""

import numpy as np
import pytest

from benchmarks.search_gain import cost_of, gain_at, gain_at_equal_cost, place_of
from genloop.stats.frontier import Curve
from genloop.stats.resampling import paired_bootstrap
from tests.worlds.curves import curve_of, made_up


def score_at(curve: Curve, cost: float) -> float:
    """The score that so much buys; ValueError outside of the curve."""
    return float(np.interp(place_of(curve, cost), np.arange(1, len(curve.cost) + 1), curve.score))


def test_between_two_budgets_a_curve_is_a_straight_line():
    curve = curve_of([[0.2, 0.6, 0.7]], [10, 20, 40])
    assert [score_at(curve, cost) for cost in (10, 15, 20, 30, 40)] == pytest.approx([0.2, 0.4, 0.6, 0.65, 0.7])
    assert [place_of(curve, cost) for cost in (10, 15, 30)] == pytest.approx([1, 1.5, 2.5])
    assert place_of(curve, 10 * (1 - 1e-12)) == 1 and place_of(curve, 40 * (1 + 1e-12)) == 3
    assert [cost_of(curve, score) for score in (0.1, 0.2, 0.4, 0.65, 0.71)] == [10, 10, 15, pytest.approx(30), None]


@pytest.mark.parametrize(("cost", "hint"), [(9.9, "40$"), (40.1, "40; draw a larger pool")])
def test_a_cost_outside_of_a_curve_is_refused(cost, hint):
    curve = curve_of([[0.2, 0.6, 0.7]], [10, 20, 40])
    with pytest.raises(ValueError, match=f"outside the curve, which goes from 10 to {hint}"):
        score_at(curve, cost)
    with pytest.raises(ValueError, match="outside the curve"):
        gain_at_equal_cost(curve_of([[0.5]], [cost]), curve, 0)


def test_a_strategy_at_a_budget_of_the_curve_is_compared_as_pairs_are():
    rng = np.random.default_rng(1)
    curve, rates = made_up(rng)
    ours = (rng.random(len(rates)) < rates).astype(float)
    strategy = curve_of(ours[:, None], [30.0], tags=curve.tags)
    gain = gain_at_equal_cost(strategy, curve, 7)
    pairs = paired_bootstrap(ours.tolist(), curve.values[:, 2].tolist(), curve.clusters, 7, tags=curve.tags)
    assert (gain.place, gain.cost) == (3.0, 30.0)
    assert gain.cost_ratio == (1.0, 1.0, 1.0)
    assert gain.overall == pytest.approx(pairs, abs=0.01)
    assert gain.overall.estimate == pytest.approx(strategy.score[0] - curve.score[2])
    assert np.mean([task.estimate for task in gain.tasks.values()]) == pytest.approx(gain.overall.estimate)
    assert list(gain.tasks) == ["easy", "hard"]


def test_a_strategy_that_is_the_curve_gains_nothing_and_half_way_neither():
    curve, _ = made_up(np.random.default_rng(2))
    mixed = curve_of(curve.values[:, 1:3].mean(axis=1, keepdims=True), [25.0], tags=curve.tags)
    gain = gain_at_equal_cost(mixed, curve, 0)
    assert gain.place == 2.5
    assert gain.overall.estimate == pytest.approx(0, abs=1e-12)
    assert gain.overall.low < 0 < gain.overall.high  # nothing to resample is not certainty


def test_the_interval_of_a_gain_covers_it():
    """Best of 3 at the cost of 3.5: what it loses against the curve is known from many prompts."""
    rng = np.random.default_rng(3)
    large, _ = made_up(rng, num_prompts=20000)
    truth = large.score[2] - score_at(large, 35.0)
    hits = 0
    for seed in range(100):
        curve, _ = made_up(rng)
        other, _ = made_up(rng)
        strategy = curve_of(other.values[:, 2:3], rng.normal(35, 5, (80, 1)), tags=curve.tags)
        found = gain_at_equal_cost(strategy, curve, seed, num_resamples=300).overall
        hits += found.low <= truth <= found.high
    assert hits >= 88


def test_pools_and_images_of_a_prompt_are_one_cluster_on_both_sides():
    clusters, tags = ["p", "p", "q", "q"], ["a"] * 4
    curve = curve_of([[0.0, 0.4], [0.2, 0.6], [0.5, 0.5], [0.5, 0.7]], [1, 2], clusters=clusters, tags=tags)
    strategy = curve_of([[1.0], [0.0], [1.0]], [1.5], clusters=["q", "p", "q"], tags=["a"] * 3)
    gain = gain_at_equal_cost(strategy, curve, 0)
    assert gain.overall.estimate == pytest.approx(2 / 3 - (0.3 + 0.55) / 2)


def test_at_a_place_the_costs_may_differ_and_are_told():
    curve = curve_of([[0.2, 0.6], [0.4, 0.9]], [10, 20])
    strategy = curve_of([[0.7], [0.9]], [[8.0], [16.0]])
    gain = gain_at(strategy, curve, 2, 0)
    assert gain.overall.estimate == pytest.approx(0.05)
    assert gain.cost_ratio.estimate == pytest.approx(0.6)
    assert gain.cost_ratio.low == pytest.approx(0.4) and gain.cost_ratio.high == pytest.approx(0.8)
    with pytest.raises(ValueError, match="place must be between 1 and 2, found 3"):
        gain_at(strategy, curve, 3, 0)


def test_gains_depend_on_their_seed_alone():
    curve, rates = made_up(np.random.default_rng(4))
    strategy = curve_of(rates[:, None], [33.0], tags=curve.tags)
    assert gain_at_equal_cost(strategy, curve, 5) == gain_at_equal_cost(strategy, curve, 5)


def test_other_prompts_and_two_budgets_are_refused():
    curve = curve_of([[0.2, 0.6], [0.4, 0.9]], [10, 20])
    with pytest.raises(ValueError, match="same prompts can be compared, found 2 and 2, 1 in both"):
        gain_at_equal_cost(curve_of([[1.0], [0.0]], [15], clusters=[1, 2]), curve, 0)
    with pytest.raises(ValueError, match="a strategy has one budget, found 2"):
        gain_at_equal_cost(curve, curve, 0)
