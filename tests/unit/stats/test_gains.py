"""Gains over prompts: means, intervals, tests, and what happens with too few."""

import math

import numpy as np
import pytest

from genloop.stats.gains import gain, position


def test_a_gain_counts_prompts_and_knows_its_direction():
    rng = np.random.default_rng(0)
    prompts = [prompt for prompt in range(20) for _ in range(3)]
    before = rng.normal(size=60)
    after = before + 0.5 + 0.1 * rng.normal(size=60)
    found = gain(before, after, prompts, seed=1)
    back = gain(after, before, prompts, seed=1)
    assert (found.prompts, found.images) == (20, 60)
    assert found.difference.estimate == pytest.approx((after - before).mean())
    assert 0.4 < found.difference.low < found.difference.estimate < found.difference.high < 0.6
    assert found.wins.estimate == 1.0 and found.wins.low < 1 and found.effect == 1.0 and back.effect == -1.0
    assert found.p == back.p == pytest.approx(2 * 0.5**20)
    assert found == gain(before, after, prompts, seed=1)


def test_equal_sides_gain_nothing():
    found = gain([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "abc", seed=0)
    assert found.difference.estimate == 0 and math.isnan(found.difference.low)
    assert found.p == 1 and found.wins.estimate == 0.5 and math.isnan(found.effect)


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(60):
        values = rng.exponential(size=40)
        found = gain(np.zeros(40), values, range(40), seed=trial).difference
        hits += found.low <= 1 <= found.high
    assert hits >= 50


def test_a_position_lies_between_floor_and_ceiling():
    found = position([0.2, 0.4, 0.3], [0.6, 0.7, 0.65], "abc", 1.0, seed=0)
    assert found.estimate == pytest.approx((0.65 - 0.3) / 0.7) and found.low < found.estimate < found.high
    assert position([0.2, 0.4], [0.2, 0.4], "ab", 1.0, seed=0).estimate == 0
    assert position([0.2, 0.4], [1.0, 1.0], "ab", 1.0, seed=0).estimate == 1
    assert math.isnan(position([1.0, 1.0], [1.0, 1.0], "ab", 1.0, seed=0).estimate)
    assert math.isnan(position([0.2], [0.5], "a", 1.0, seed=0).low)
