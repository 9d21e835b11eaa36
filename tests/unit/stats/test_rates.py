"""Accuracy by task and overall: bootstrapped where that holds what it promises, else Wilson's, and which it was."""

import numpy as np
import pytest

from genloop.stats.intervals import clustered_wilson, mean_of
from genloop.stats.rates import FEW, Rate, in_order, legend, rates
from genloop.stats.resampling import cluster_bootstrap

RNG = np.random.default_rng(0)
SIZES = {"counting": FEW, "colors": FEW + 10, "own": FEW}  # prompts, of two images each
TAGS = [tag for tag, size in SIZES.items() for _ in range(2 * size)]
PROMPTS = [f"{tag} {i // 2}" for i, tag in enumerate(TAGS)]
VALUES = [float(value) for value in RNG.random(len(TAGS)) < 0.6]
OF_COLORS = slice(2 * FEW, 4 * FEW + 20)


def test_tasks_come_in_genevals_order_unknown_ones_last():
    assert in_order(["own", "colors", "another", "counting"]) == ["counting", "colors", "another", "own"]
    assert list(rates(VALUES[::-1], PROMPTS[::-1], TAGS[::-1]).tasks) == ["counting", "colors", "own"]


def test_tasks_of_many_prompts_are_bootstrapped_and_so_is_their_mean():
    found = rates(VALUES, PROMPTS, TAGS, seed=3)
    assert found.tasks["colors"] == Rate(cluster_bootstrap(VALUES[OF_COLORS], PROMPTS[OF_COLORS], 4), "bootstrap")
    assert {task.method for task in found.tasks.values()} == {"bootstrap"}
    assert found.overall == Rate(cluster_bootstrap(VALUES, PROMPTS, 3, tags=TAGS), "bootstrap")


def test_wilson_gives_all_tasks_that_interval():
    found = rates(VALUES, PROMPTS, TAGS, kind="wilson")
    assert found.tasks["colors"] == Rate(clustered_wilson(VALUES[OF_COLORS], PROMPTS[OF_COLORS]), "wilson")
    assert {task.method for task in found.tasks.values()} == {"wilson"}
    assert found.overall == Rate(mean_of([task.interval for task in found.tasks.values()]), "combined")


def test_a_task_of_few_prompts_has_wilsons_and_the_mean_is_combined():
    values, prompts, tags = (whole[2:] for whole in (VALUES, PROMPTS, TAGS))  # one prompt of counting less
    found = rates(values, prompts, tags)
    assert [task.method for task in found.tasks.values()] == ["wilson", "bootstrap", "bootstrap"]
    assert found.tasks["counting"].interval == clustered_wilson(values[: 2 * FEW - 2], prompts[: 2 * FEW - 2])
    assert found.overall == Rate(mean_of([task.interval for task in found.tasks.values()]), "combined")
    assert rates(values, prompts, tags, few=FEW - 1).overall.method == "bootstrap"


@pytest.mark.parametrize("images", [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_where_drawing_again_changes_nothing_the_interval_is_wilsons(images):
    values = [*images] * FEW + VALUES[2 * FEW :]
    found = rates(values, PROMPTS, TAGS)
    assert found.tasks["counting"] == Rate(clustered_wilson(values[: 2 * FEW], PROMPTS[: 2 * FEW]), "wilson")
    assert found.tasks["counting"].interval.low < found.tasks["counting"].interval.high
    assert (found.tasks["colors"].method, found.overall.method) == ("bootstrap", "combined")


def test_both_kinds_have_the_same_estimates_and_similar_bars():
    wilson, bootstrap = rates(VALUES, PROMPTS, TAGS, kind="wilson"), rates(VALUES, PROMPTS, TAGS, seed=1)
    assert bootstrap == rates(VALUES, PROMPTS, TAGS, seed=1)
    pairs = [(wilson.tasks[tag].interval, bootstrap.tasks[tag].interval) for tag in SIZES]
    for one, other in [*pairs, (wilson.overall.interval, bootstrap.overall.interval)]:
        assert other.estimate == pytest.approx(one.estimate)
        assert 0.8 < (other.high - other.low) / (one.high - one.low) < 1.1


def test_the_legend_explains_what_occurs():
    assert legend(["bootstrap", "bootstrap"]) == "95 % intervals: bootstrap over prompts"
    assert legend(["bootstrap", "wilson", "combined"]) == (
        "95 % intervals: bootstrap over prompts; w: Wilson's at the effective sample size; "
        "c: combined from those of the tasks"
    )
