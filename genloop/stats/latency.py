"""Percentiles of measured seconds with intervals that assume nothing about their distribution.

Their bounds are order statistics (Conover 1999, 3.2): few calls leave a high percentile without an upper bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of `n` calls; a bound that so few calls cannot give is infinite, or 0 below."""

    n: int
    p50: Interval
    p95: Interval

    def to_json(self) -> dict[str, Any]:
        """Bounds that are not known are null."""
        return {"n": self.n, "p50": _json(self.p50), "p95": _json(self.p95)}


def latency(seconds: Sequence[float]) -> Latency:
    """The median and the 95th percentile; ValueError for no calls."""
    if not len(seconds):
        raise ValueError("a latency needs at least one call, found none")
    return Latency(len(seconds), *(_percentile(seconds, share) for share in (0.5, 0.95)))


def _percentile(seconds: Sequence[float], share: float) -> Interval:
    from scipy.stats import quantile_test

    estimate = float(np.quantile(seconds, share))
    found = quantile_test(seconds, q=estimate, p=share).confidence_interval(confidence_level=0.95)
    low = 0.0 if math.isnan(found.low) else float(found.low)
    high = math.inf if math.isnan(found.high) else float(found.high)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _json(interval: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}
