"""The bootstrap: a statistic of clusters that are drawn with replacement within strata (Efron and Tibshirani 1993).

Clusters are prompts, because images of one prompt are not independent; strata are tasks. A statistic takes how often
each cluster counts, (R, C), and returns a number, or several, for each row.

Where every resample gives the same number, as when all images are right, the interval would have no width. Then the
statistic is resampled with two pseudo-clusters of average size added to each stratum, one at either end of the scale
(after Bonett and Price 2012). All intervals share this rule.
R = resamples, C = clusters, S = strata.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

from genloop.stats.clusters import by_cluster
from genloop.stats.intervals import Interval

MAX_CELLS = 1 << 21  # numbers held at a time, to bound memory
ROUNDING = 1e-12  # a spread that is not one
_BOUNDS = (1 - 0.95) / 2, (1 + 0.95) / 2  # quantiles of a 95 % interval

Statistic = Callable[[np.ndarray], np.ndarray]  # weights (R, C) -> (R,) or (R, K); NaN where it is not defined


def bootstrap(
    statistic: Statistic,
    strata: np.ndarray,
    seed: int,
    *,
    extended: Statistic | None = None,
    num_resamples: int = 4000,
    width: int = 0,
) -> list[Interval]:
    """Percentile intervals of the K numbers of `statistic`; `strata` (C,) holds the stratum of each cluster, from 0.

    `extended` is the same statistic of C + 2 S clusters, the last of which are two more in each stratum: it is used
    where resamples have no spread. `width`: numbers that the statistic holds for one resample, if more than C.
    An interval always holds its estimate; resamples without a number are left out.
    """
    estimate = np.atleast_1d(statistic(np.ones((1, len(strata))))[0])
    low, high = _percentiles(statistic, strata, seed, num_resamples, width)
    is_flat = ~(high - low > ROUNDING)
    if extended is not None and is_flat.any():
        added = np.repeat(np.arange(strata.max() + 1), 2)
        wider = _percentiles(extended, np.concatenate([strata, added]), seed, num_resamples, width)
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
) -> Interval:
    """The mean of `values` with a percentile interval over resampled clusters.

    With `tags` the unweighted mean of the means by tag; clusters are then drawn within their tag. `ends` are the lowest
    and the highest possible value; without them an interval may have no width.
    """
    sums, counts, strata = by_cluster(values, clusters, tags)
    num_strata, size = int(strata.max()) + 1, float(counts.mean())
    extended = None
    if ends is not None:
        extended = mean_of_strata(
            np.concatenate([sums, np.tile([end * size for end in ends], num_strata)]),
            np.concatenate([counts, np.full(2 * num_strata, size)]),
            np.concatenate([strata, np.repeat(np.arange(num_strata), 2)]),
        )
    mean = mean_of_strata(sums, counts, strata)
    return bootstrap(mean, strata, seed, extended=extended, num_resamples=num_resamples)[0]


def drawn_mean(values: Sequence[float], clusters: Sequence[Hashable], seed: int) -> Interval:
    """The mean with its interval over resampled clusters, NaN where they do not differ: that says nothing of others."""
    found = cluster_bootstrap(values, clusters, seed)
    return found if found.low < found.high else Interval(found.estimate, float("nan"), float("nan"))


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    *,
    tags: Sequence[Hashable] | None = None,
    num_resamples: int = 4000,
) -> Interval:
    """mean(a) - mean(b) of pairs (same prompt, same sample) of values in [0, 1], as `cluster_bootstrap` has it."""
    if len(a) != len(b):
        raise ValueError(f"pairs need equally many values, found {len(a)} and {len(b)}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return cluster_bootstrap(
        difference.tolist(), clusters, seed, tags=tags, ends=(-1.0, 1.0), num_resamples=num_resamples
    )


def mean_of_strata(sums: np.ndarray, counts: np.ndarray, strata: np.ndarray) -> Statistic:
    """The unweighted mean of the strata's means, from sums (C,) and counts (C,) of each cluster; NaN for no counts."""
    groups = [strata == stratum for stratum in range(int(strata.max()) + 1)]

    def mean_of_one(weights: np.ndarray, group: np.ndarray) -> np.ndarray:
        total = weights[:, group] @ counts[group]
        return np.divide(weights[:, group] @ sums[group], total, out=np.full_like(total, np.nan), where=total > 0)

    return lambda weights: np.mean([mean_of_one(weights, group) for group in groups], axis=0)


def _percentiles(
    statistic: Statistic, strata: np.ndarray, seed: int, num_resamples: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    drawn = [statistic(weights) for weights in resampled_weights(strata, seed, num_resamples, width=width)]
    low, high = np.nanquantile(np.concatenate(drawn), _BOUNDS, axis=0)
    return np.atleast_1d(low), np.atleast_1d(high)
