"""Percentiles of seconds: order statistics as bounds, none where the calls are too few."""

import json
import math

import numpy as np
import pytest

from genloop.stats.latency import latency


def test_bounds_are_measured_seconds_around_the_percentile():
    seconds = np.random.default_rng(0).gamma(2, size=200).tolist()
    found = latency(seconds)
    assert found.n == 200
    for interval, share in ((found.p50, 0.5), (found.p95, 0.95)):
        assert interval.estimate == np.quantile(seconds, share)
        assert interval.low in seconds and interval.high in seconds
        assert interval.low < interval.estimate < interval.high


def test_few_calls_leave_the_high_percentile_without_an_upper_bound():
    found = latency([0.1, 0.2, 0.3, 0.2, 0.1, 0.4, 0.2, 0.1, 0.3, 0.2])
    assert math.isinf(found.p95.high) and math.isfinite(found.p50.high)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["p95"]["high"] is None


def test_the_interval_of_the_median_covers_it_as_often_as_it_says():
    rng = np.random.default_rng(1)
    drawn = [latency(rng.exponential(size=31).tolist()).p50 for _ in range(150)]
    covered = np.mean([found.low <= math.log(2) <= found.high for found in drawn])
    assert covered >= 0.9


def test_no_calls_have_no_latency():
    with pytest.raises(ValueError, match="none"):
        latency([])
