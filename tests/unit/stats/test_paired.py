"""Tests of paired differences are exact, treat a prompt as one, and know what they can find."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.stats.paired import (
    detectable,
    holm,
    mcnemar,
    mean_difference,
    sign_flip_test,
    standard_error,
    weighted_sign_flip_test,
)


def by_enumeration(steps: list[int]) -> float:
    sums = [abs(sum(sign * step for sign, step in zip(signs, steps))) for signs in product((-1, 1), repeat=len(steps))]
    return float(np.mean([one >= abs(sum(steps)) for one in sums]))


@settings(deadline=None)
@given(steps=st.lists(st.integers(-4, 4), max_size=9))
def test_the_flip_test_is_the_share_of_all_signs(steps):
    assert sign_flip_test(steps) == pytest.approx(by_enumeration(steps))


@settings(deadline=None)
@given(better=st.integers(0, 40), worse=st.integers(0, 40))
def test_with_one_image_a_prompt_it_is_mcnemars(better, worse):
    assert sign_flip_test([1] * better + [-1] * worse) == pytest.approx(mcnemar(better, worse))


def test_images_of_a_prompt_do_not_count_for_themselves():
    assert sign_flip_test([4] * 4) == pytest.approx(2 / 2**4)
    assert mcnemar(16, 0) < 0.001


def test_random_signs_agree_with_all_signs_and_depend_on_the_seed_alone():
    steps = [2, 1, -1, 3, 1, 0, 1, -2, 1, 1, 2, -1]
    drawn = weighted_sign_flip_test(steps, 0)
    assert drawn == weighted_sign_flip_test(steps, 0)
    assert drawn == pytest.approx(sign_flip_test(steps), abs=0.015)
    assert weighted_sign_flip_test([0.0, 0.0], 0) == 1.0
    assert weighted_sign_flip_test([0.1] * 200, 0) == pytest.approx(1 / 20_001)


def test_the_standard_error_is_that_of_a_mean_where_prompts_have_equally_many_images():
    steps = [1.0, 0.0, -1.0, 2.0, 0.0, 1.0]
    assert standard_error(steps, [2] * 6) == pytest.approx(np.std(steps, ddof=1) / np.sqrt(6) / 2)


def test_without_any_difference_the_error_is_not_zero_and_shrinks_with_n():
    few, many = standard_error([0] * 5, [4] * 5), standard_error([0] * 50, [4] * 50)
    assert 0 < many < few
    assert standard_error([1], [1]) == float("inf")


@pytest.mark.parametrize("difference", [0.1, 0.7, -1 / 3])
def test_equal_differences_leave_doubt_whatever_their_last_bits(difference):
    for count in range(2, 40):
        mean, low, high = mean_difference([difference] * count)
        assert low < mean - 0.05 and high > mean + 0.05
        assert standard_error([1] * count, [49] * count) > 1e-4


def test_what_is_detectable_is_found_in_80_percent_of_cases():
    rng = np.random.default_rng(0)
    prompts, spread = 60, 0.5
    reach = detectable(spread / np.sqrt(prompts), prompts - 1)
    critical = 2.001  # Student's t of 59 degrees, two-sided 5 %
    means = rng.normal(reach, spread, size=(2000, prompts))
    found = np.abs(means.mean(axis=1) / (means.std(axis=1, ddof=1) / np.sqrt(prompts))) > critical
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert detectable(float("inf"), 5) == detectable(0.1, 0) == float("inf")


def test_of_several_claims_one_is_found_in_80_percent_of_cases_when_only_that_differs():
    rng, found, reaches, shifts = np.random.default_rng(0), 0, [], []
    for _ in range(150):
        rates = rng.random((6, 94, 1))
        better = (rates + 0.24 * np.eye(6)[0][:, None, None] * rng.random((6, 94, 1))).clip(0, 1)
        a, b = (rng.random((6, 94, 4)) < side for side in (rates, better))
        steps = b.sum(axis=2) - a.sum(axis=2)  # (6, 94)
        found += holm([sign_flip_test(task) for task in steps.tolist()])[0] < 0.05
        error = standard_error(steps[0], [4] * 94)
        reaches.append(detectable(error, 93, step=1 / 376, level=1 - 0.05 / 6))
        shifts.append(steps[0].sum() / 376)
    assert np.mean(reaches) == pytest.approx(np.mean(shifts), rel=0.04)
    assert found / 150 == pytest.approx(0.8, abs=0.07)


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
