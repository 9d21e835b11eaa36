"""Draws follow the distribution, keep to the nucleus, and depend on their seed alone."""

import pytest
import torch

from genloop.records import Writing
from genloop.rewards.responses.drawing import chooser

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draws(writing: Writing, count: int, seed: int = 3) -> list[int]:
    choose = chooser([seed], writing)
    return [int(choose(LOGITS[None])[0]) for _ in range(count)]


def test_temperature_zero_takes_the_most_probable_token():
    assert draws(Writing(0.0, 1.0), 5) == [0] * 5


def test_draws_have_the_probabilities_of_the_model_sharpened_by_the_temperature():
    found = draws(Writing(0.5, 1.0), 4000)
    wanted = LOGITS.mul(2).softmax(0).tolist()
    assert [found.count(token) / 4000 for token in range(4)] == pytest.approx(wanted, abs=0.03)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    assert set(draws(Writing(1.0, 0.75), 400)) == {0, 1}
    assert set(draws(Writing(1.0, 0.2), 50)) == {0}


def test_a_row_draws_the_same_whatever_stands_beside_it():
    alone, both = chooser([5], Writing(1.0)), chooser([7, 5], Writing(1.0))
    rows = LOGITS.expand(2, -1)
    assert [int(alone(LOGITS[None])[0]) for _ in range(30)] == [int(both(rows)[1]) for _ in range(30)]
    assert draws(Writing(1.0), 30) != draws(Writing(1.0), 30, seed=4)
