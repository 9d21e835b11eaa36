"""Gains of one set of images over another in any number of which more is better, paired by prompt.

Images of a prompt are averaged first: prompts are the sample. Intervals are BCa bootstraps (Efron 1987), p-values
those of Wilcoxon's signed-rank test, the effect is the matched rank biserial correlation (Kerby 2014).
C = prompts.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from warnings import catch_warnings, simplefilter

import numpy as np

from genloop.stats.clusters import by_cluster
from genloop.stats.intervals import Interval, wilson

NUM_RESAMPLES = 9999
_RESAMPLES_AT_A_TIME = 500  # to bound memory
_TIE = 1e-12  # differences that rounding makes


@dataclass(frozen=True, slots=True)
class Gain:
    """The later minus the earlier, in their own unit."""

    prompts: int
    images: int
    before: float
    after: float
    difference: Interval  # NaN bounds: too few prompts, or all alike
    p: float  # uncorrected; 1 where no prompt differs
    wins: Interval  # share of prompts that gain, ties count half
    effect: float  # from -1, all lose, to 1; NaN where no prompt differs


def gain(before: Sequence[float], after: Sequence[float], prompts: Sequence[Hashable], seed: int) -> Gain:
    """Of pairs; ValueError when there are none or lengths differ."""
    old, new = _means(before, prompts), _means(after, prompts)
    difference = new - old
    difference[np.abs(difference) <= _TIE * np.maximum(np.abs(old), np.abs(new))] = 0.0
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    num = len(difference)
    return Gain(
        prompts=num,
        images=len(before),
        before=float(old.mean()),
        after=float(new.mean()),
        difference=bca(lambda x: x.mean(axis=-1), [difference], seed),
        p=_wilcoxon(difference),
        wins=wilson(better + (num - better - worse) / 2, num),
        effect=_rank_biserial(difference),
    )


def position(
    floor: Sequence[float], values: Sequence[float], prompts: Sequence[Hashable], ceiling: float, seed: int
) -> Interval:
    """Where the mean of `values` lies from the mean of `floor` (0) to `ceiling` (1), with its interval.

    NaN where the floor is at the ceiling.
    """
    lower, new = _means(floor, prompts), _means(values, prompts)

    def share(low: np.ndarray, value: np.ndarray) -> np.ndarray:
        room = ceiling - low.mean(axis=-1)
        gained = value.mean(axis=-1) - low.mean(axis=-1)
        return np.where(room > 0, gained / np.where(room > 0, room, 1), np.nan)

    return bca(share, [lower, new], seed)


def bca(statistic: Callable[..., np.ndarray], samples: Sequence[np.ndarray], seed: int) -> Interval:
    """A statistic of paired samples (C,), along the last axis, with its 95 % BCa interval.

    Bounds are NaN for fewer than two prompts, and where resamples do not differ.
    """
    from scipy.stats import bootstrap

    estimate = float(statistic(*samples))
    if len(samples[0]) < 2 or not np.isfinite(estimate):
        return Interval(estimate, float("nan"), float("nan"))

    def resampled(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(*drawn)

    with catch_warnings():
        simplefilter("ignore")  # a degenerate sample: its bounds are NaN
        found = bootstrap(
            samples,
            resampled,
            paired=True,
            vectorized=True,
            n_resamples=NUM_RESAMPLES,
            batch=_RESAMPLES_AT_A_TIME,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


def _means(values: Sequence[float], prompts: Sequence[Hashable]) -> np.ndarray:
    """(C,)"""
    sums, counts, _ = by_cluster(values, prompts)
    return sums / counts


def _wilcoxon(difference: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    changed = difference[difference != 0]
    return float(wilcoxon(changed).pvalue) if len(changed) else 1.0


def _rank_biserial(difference: np.ndarray) -> float:
    """Ranks of |differences| of those that gain, less those of the others, by all of them."""
    from scipy.stats import rankdata

    changed = difference[difference != 0]
    if not len(changed):
        return float("nan")
    ranks = rankdata(np.abs(changed))
    return float((ranks * np.sign(changed)).sum() / ranks.sum())
