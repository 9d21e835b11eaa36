"""Intervals over prompts and training seeds."""

import numpy as np
import pytest

from genloop.stats.over_seeds import over_prompts_and_seeds
from genloop.stats.resampling import cluster_bootstrap

TAGS = ["a"] * 40 + ["b"] * 20
PROMPTS = [f"{i // 2}" for i in range(60)]


def drawn(num_seeds: int, between: float, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0.1, 0.3, (num_seeds, 60)) + rng.normal(0, between, (num_seeds, 1))


def test_one_seed_is_the_bootstrap_over_prompts():
    values = drawn(1, 0)
    found = over_prompts_and_seeds(values, PROMPTS, TAGS, 0)
    alone = cluster_bootstrap(values[0].tolist(), PROMPTS, 0, tags=TAGS)
    assert found == pytest.approx(alone)


def test_the_estimate_is_the_mean_of_tasks_whatever_their_sizes():
    values = np.where(np.array(TAGS) == "a", 1.0, 0.0)[None].repeat(3, 0)
    assert over_prompts_and_seeds(values, PROMPTS, TAGS, 0).estimate == pytest.approx(0.5)


def test_seeds_that_differ_widen_the_interval():
    alike, apart = (over_prompts_and_seeds(drawn(4, between), PROMPTS, TAGS, 0) for between in (0.0, 0.5))
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_it_covers_the_truth_with_many_seeds_and_prompts():
    covered = 0
    for trial in range(60):
        found = over_prompts_and_seeds(drawn(8, 0.1, seed=trial), PROMPTS, TAGS, 0, num_resamples=400)
        covered += found.low <= 0.1 <= found.high
    assert covered >= 50


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 60\) for 59 images"):
        over_prompts_and_seeds(drawn(1, 0), PROMPTS[:-1], TAGS[:-1], 0)
