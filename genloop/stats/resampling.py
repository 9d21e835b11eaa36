"""The bootstrap: a statistic of clusters that are drawn with replacement within strata (Efron and Tibshirani 1993).

Clusters are prompts, because images of one prompt are not independent; strata are tasks. A statistic takes how often
each cluster counts, (R, C), and returns a number, or several, for each row.

Where every resample gives the same number, as when all images are right, the interval would have no width. Then the
statistic is resampled with two pseudo-clusters of average size added to each stratum, one at either end of the scale
(after Bonett and Price 2012). All intervals share this rule.
R = resamples, C = clusters, S = strata.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from genloop.stats.clusters import by_cluster
from genloop.stats.intervals import Interval

MAX_CELLS = 1 << 21  # numbers held at a time, to bound memory
ROUNDING = 1e-12  # a spread that is not one

Statistic = Callable[[np.ndarray], np.ndarray]  # weights (R, C) -> (R,) or (R, K); NaN where it is not defined


def bootstrap(
    statistic: Statistic,
    strata: np.ndarray,
    seed: int,
    *,
    extended: Statistic | None = None,
    num_resamples: int = 4000,
    level: float = 0.95,
    width: int = 0,
) -> list[Interval]:
    """Percentile intervals of the K numbers of `statistic`; `strata` (C,) holds the stratum of each cluster, from 0.

    `extended` is the same statistic of C + 2 S clusters, the last of which are two more in each stratum: it is used
    where resamples have no spread. `width`: numbers that the statistic holds for one resample, if more than C.
    An interval always holds its estimate; resamples without a number are left out.
    """
    estimate = np.atleast_1d(statistic(np.ones((1, len(strata))))[0])
    options: dict[str, Any] = {"num_resamples": num_resamples, "level": level, "width": width}
    low, high = _percentiles(statistic, strata, seed, **options)
    is_flat = ~(high - low > ROUNDING)
    if extended is not None and is_flat.any():
        added = np.repeat(np.arange(strata.max() + 1), 2)
        wider = _percentiles(extended, np.concatenate([strata, added]), seed, **options)
        low, high = np.where(is_flat, wider[0], low), np.where(is_flat, wider[1], high)
    bounds = zip(estimate.tolist(), np.minimum(low, estimate).tolist(), np.maximum(high, estimate).tolist())
    return [Interval(*numbers) for numbers in bounds]


def resampled_weights(strata: np.ndarray, seed: int, num_resamples: int, *, width: int = 0) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, (r, C) at a time, R rows in all; each stratum keeps its number of clusters.

    Every stratum has its own random stream, keyed by (seed, stratum).
    """
    members = [np.flatnonzero(strata == stratum) for stratum in range(int(strata.max()) + 1)]
    streams = [np.random.default_rng([seed, stratum]) for stratum in range(len(members))]
    at_a_time = max(1, MAX_CELLS // max(width, len(strata)))
    for start in range(0, num_resamples, at_a_time):
        rows = min(at_a_time, num_resamples - start)
        weights = np.empty((rows, len(strata)))
        for stream, group in zip(streams, members):
            size = len(group)
            drawn = stream.integers(0, size, size=(rows, size)) + size * np.arange(rows)[:, None]
            weights[:, group] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield weights


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    *,
    tags: Sequence[Hashable] | None = None,
    ends: tuple[float, float] | None = None,
    num_resamples: int = 4000,
    level: float = 0.95,
) -> Interval:
    """The mean of `values` with a percentile interval over resampled clusters.

    With `tags` the unweighted mean of the means by tag; clusters are then drawn within their tag. `ends` are the lowest
    and the highest possible value; without them an interval may have no width.
    """
    sums, counts, strata = by_cluster(values, clusters, tags)
    options: dict[str, Any] = {"num_resamples": num_resamples, "level": level}
    if ends is None:
        return bootstrap(mean_of_strata(sums, counts, strata), strata, seed, **options)[0]
    num_strata, size = int(strata.max()) + 1, float(counts.mean())
    extended = mean_of_strata(
        np.concatenate([sums, np.tile([end * size for end in ends], num_strata)]),
        np.concatenate([counts, np.full(2 * num_strata, size)]),
        np.concatenate([strata, np.repeat(np.arange(num_strata), 2)]),
    )
    return bootstrap(mean_of_strata(sums, counts, strata), strata, seed, extended=extended, **options)[0]


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    *,
    tags: Sequence[Hashable] | None = None,
    num_resamples: int = 4000,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b) of pairs (same prompt, same sample) of values in [0, 1], as `cluster_bootstrap` has it."""
    if len(a) != len(b):
        raise ValueError(f"pairs need equally many values, found {len(a)} and {len(b)}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    options: dict[str, Any] = {"num_resamples": num_resamples, "level": level}
    return cluster_bootstrap(difference.tolist(), clusters, seed, tags=tags, ends=(-1.0, 1.0), **options)


def mean_of_strata(sums: np.ndarray, counts: np.ndarray, strata: np.ndarray) -> Statistic:
    """The unweighted mean of the strata's means, from sums (C,) and counts (C,) of each cluster."""
    groups = [strata == stratum for stratum in range(int(strata.max()) + 1)]

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([weights[:, g] @ sums[g] / (weights[:, g] @ counts[g]) for g in groups], axis=0)

    return mean


def _percentiles(
    statistic: Statistic, strata: np.ndarray, seed: int, *, num_resamples: int, level: float, width: int
) -> tuple[np.ndarray, np.ndarray]:
    drawn = [statistic(weights) for weights in resampled_weights(strata, seed, num_resamples, width=width)]
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.atleast_1d(low), np.atleast_1d(high)
