"""Seconds an item, from what some units (or spans of training steps) took: a ratio with a bootstrap interval.

Units are the clusters. From one unit there is no interval, from few it is too narrow (see `genloop.stats.intervals`).
"""

from collections.abc import Sequence

import numpy as np

from genloop.stats.intervals import Interval
from genloop.stats.resampling import bootstrap, mean_of_strata


def pace_of(items: Sequence[float], seconds: Sequence[float]) -> Interval:
    """Seconds an item with its 95 % interval; ValueError without items. One unit: NaN bounds."""
    if not sum(items) > 0:
        raise ValueError("no unit with items")
    strata = np.zeros(len(items), dtype=np.int64)
    found = bootstrap(mean_of_strata(np.array(seconds, float), np.array(items, float), strata), strata, 0)[0]
    return found if len(items) > 1 else Interval(found.estimate, float("nan"), float("nan"))
