"""Curves of score against cost: means are those of the tasks, bands those of each budget."""

import numpy as np
import pytest

from genloop.stats.frontier import Curve
from genloop.stats.resampling import cluster_bootstrap
from tests.worlds.curves import curve_of, made_up


def test_the_mean_is_that_of_the_tasks_and_not_of_the_items():
    curve = curve_of([[1.0], [1.0], [1.0], [0.0]], [3.0], tags=["a", "a", "a", "b"])
    assert curve.score.tolist() == [0.5]
    assert curve.band(0)[0].estimate == 0.5
    assert curve.of_task("b").score.tolist() == [0.0]


def test_bands_are_those_of_each_budget():
    curve, _ = made_up(np.random.default_rng(6))
    alone = cluster_bootstrap(curve.values[:, 4].tolist(), curve.clusters, 3, tags=curve.tags)
    assert curve.band(3)[4] == pytest.approx(alone, abs=0.01)
    assert [found.estimate for found in curve.band(3)] == pytest.approx(curve.score)


def test_a_band_is_not_certain_where_all_prompts_score_alike():
    found = curve_of([[1.0], [1.0], [1.0]], [1.0]).band(0)[0]
    assert found == pytest.approx((1.0, 0.4, 1.0))  # three prompts, one right and one wrong: two of five, or fewer


def test_broken_curves_are_refused():
    with pytest.raises(ValueError, match="must rise"):
        curve_of([[0.2, 0.6]], [20, 10])
    with pytest.raises(ValueError, match="2 items has 1 clusters"):
        Curve(np.zeros((2, 1)), np.ones((2, 1)), ["p"], ["a", "a"])
    with pytest.raises(ValueError, match="needs values and costs"):
        Curve(np.zeros((2, 1)), np.ones((2, 2)), ["p", "q"], ["a", "a"])
