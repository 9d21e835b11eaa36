"""Accuracy by task and overall with either kind of error bars."""

import numpy as np
import pytest

from genloop.metrics.statistics import clustered_wilson, mean_of
from genloop.metrics.statistics_rates import in_order, rates

RNG = np.random.default_rng(0)
TAGS = ["counting"] * 40 + ["colors"] * 60 + ["own"] * 20
PROMPTS = [f"{tag} {i // 4}" for i, tag in enumerate(TAGS)]
VALUES = [float(value) for value in RNG.random(120) < 0.6]


def test_tasks_come_in_genevals_order_unknown_ones_last():
    assert in_order(["own", "colors", "another", "counting"]) == ["counting", "colors", "another", "own"]


def test_wilson_is_the_default_and_that_of_each_task():
    found = rates(VALUES, PROMPTS, TAGS)
    assert list(found.tasks) == ["counting", "colors", "own"]
    assert found.tasks["colors"] == clustered_wilson(VALUES[40:100], PROMPTS[40:100])
    assert found.overall == mean_of(list(found.tasks.values()))


def test_both_kinds_have_the_same_estimates_and_similar_bars():
    wilson, bootstrap = rates(VALUES, PROMPTS, TAGS), rates(VALUES, PROMPTS, TAGS, kind="bootstrap", seed=1)
    assert bootstrap == rates(VALUES, PROMPTS, TAGS, kind="bootstrap", seed=1)
    assert bootstrap.overall.estimate == pytest.approx(wilson.overall.estimate)
    for tag, interval in wilson.tasks.items():
        assert bootstrap.tasks[tag].estimate == pytest.approx(interval.estimate)
    ours, theirs = bootstrap.tasks["colors"], wilson.tasks["colors"]
    assert 0.7 < (ours.high - ours.low) / (theirs.high - theirs.low) < 1.1


def test_a_task_that_is_all_right_is_not_certain():
    values = [1.0] * 40 + VALUES[40:]
    found = rates(values, PROMPTS, TAGS, kind="bootstrap")
    assert found.tasks["counting"] == clustered_wilson([1.0] * 40, PROMPTS[:40])
    assert found.tasks["counting"].low < 1
    certain = rates([1.0] * 120, PROMPTS, TAGS, kind="bootstrap").overall
    assert certain.low < certain.high == 1
