"""Schedules and temperatures: published tables, limits, and shapes that every schedule shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genloop.sampling.maskgit.schedule import choice_temperature, mask_ratio, masked_after

SCHEDULES = ["cosine", "linear", "sigmoid", "pow2", "pow0.5", "pow3"]


def test_the_cosine_table_of_18_steps_is_the_published_one() -> None:
    counts = [masked_after("cosine", step, 18, 256) for step in range(17)]
    assert counts == [255, 252, 247, 240, 232, 221, 209, 196, 181, 164, 146, 127, 108, 87, 66, 44, 22]


def test_the_cumulative_temperature_is_the_published_one() -> None:
    values = [choice_temperature("cumulative", 1.0, step, 6) for step in range(6)]
    assert values == pytest.approx([0.8333, 0.5556, 0.2778, 0.0926, 0.0154, 0.0], abs=1e-4)
    assert [choice_temperature("reference", 2.0, step, 6) for step in range(6)] == pytest.approx(
        [2 * v for v in values]
    )


def test_maskgit_temperature_falls_linearly_to_zero() -> None:
    assert [choice_temperature("maskgit", 4.0, step, 4) for step in range(4)] == [3.0, 2.0, 1.0, 0.0]


@given(st.sampled_from(SCHEDULES), st.integers(1, 60), st.integers(1, 1024))
def test_a_schedule_reveals_more_with_every_step(schedule: str, steps: int, tokens: int) -> None:
    counts = [masked_after(schedule, step, steps, tokens) for step in range(steps)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] <= 0
    assert max(counts) <= tokens


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_begins_with_everything_masked(schedule: str) -> None:
    assert mask_ratio(schedule, 0.0) == pytest.approx(1.0, abs=1e-6)
    assert mask_ratio(schedule, 1.0) == pytest.approx(0.0, abs=1e-5)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'cosin' "):
        mask_ratio("cosin", 0.5)
