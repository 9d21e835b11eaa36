"""What a smaller judge keeps: coins keep nothing beyond chance, originals at chance have nothing to keep."""

import json

import numpy as np
import pytest

from genloop.stats.retention import retention


def drawn(rng: np.random.Generator, n: int, *rates: float) -> list[list[float]]:
    return [(rng.random(n) < rate).astype(float).tolist() for rate in rates]


def test_shares_are_those_by_hand():
    original, smaller = [1.0] * 8 + [0.0] * 2, [1.0] * 7 + [0.0] * 3
    found = retention(original * 20, smaller * 20, range(200), 0)
    assert found.raw.estimate == pytest.approx(0.7 / 0.8) and found.chance.estimate == pytest.approx(0.2 / 0.3)
    assert found.difference.estimate == pytest.approx(-0.1) and (found.n, found.clusters) == (200, 200)
    assert json.loads(json.dumps(found.to_json()))["chance"]["low"] < 0.2 / 0.3


def test_a_coin_passes_the_raw_goal_and_not_the_corrected_one():
    original, coin = drawn(np.random.default_rng(0), 3000, 0.65, 0.5)
    found = retention(original, coin, range(3000), 0)
    assert found.verdict(0.7, "raw") == "pass" and found.verdict(0.7, "chance") == "fail"
    assert found.chance.low < 0 < found.chance.high


def test_nothing_can_be_kept_of_an_original_at_chance():
    original, smaller = drawn(np.random.default_rng(1), 200, 0.5, 0.9)
    found = retention(original, smaller, range(200), 0)
    assert found.chance is None and found.to_json()["chance"] is None
    assert {found.verdict(0.7, criterion) for criterion in ("raw", "chance")} == {"undefined"}


def test_the_original_itself_keeps_everything_with_an_interval_that_is_not_empty():
    (original,) = drawn(np.random.default_rng(2), 400, 0.8)
    found = retention(original, original, range(400), 0)
    assert found.chance.estimate == 1 and 0.7 < found.chance.low < 1 < found.chance.high


def test_pairs_of_one_image_count_once_for_the_width():
    original, smaller = drawn(np.random.default_rng(3), 60, 0.8, 0.75)
    once = retention(original, smaller, range(60), 0)
    often = retention(original * 5, smaller * 5, list(range(60)) * 5, 0)
    assert often.n == 300 and often.clusters == 60
    assert often.chance.low == pytest.approx(once.chance.low, abs=0.02)


def test_the_interval_covers_what_is_kept_as_often_as_it_says():
    rng, kept = np.random.default_rng(4), 0.2 / 0.3
    covered = []
    for number in range(40):
        original, smaller = drawn(rng, 300, 0.8, 0.7)
        found = retention(original, smaller, range(300), number)
        covered.append(found.chance.low <= kept <= found.chance.high)
    assert np.mean(covered) >= 0.85


def test_values_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        retention([1.0], [1.0, 0.0], [0], 0)
