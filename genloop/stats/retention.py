"""What a smaller judge keeps of an original's accuracy in choosing one of two answers.

A coin is right half of the time, so the share of the accuracy that is kept, raw = s / t, is 77 % for a coin beside an
original of 65 %. Corrected for chance it is (s - 1/2) / (t - 1/2), which is nothing for a coin; it is undefined where
the original itself is not above chance beyond doubt.
s, t = accuracies of the smaller judge and the original over the same pairs of answers, R = resamples, C = clusters.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genloop.stats.clusters import by_cluster
from genloop.stats.intervals import Interval, clustered_wilson
from genloop.stats.resampling import Statistic, bootstrap, paired_bootstrap

Criterion = Literal["chance", "raw"]
Verdict = Literal["pass", "fail", "undefined"]
CHANCE = 0.5
_FARTHEST = 10.0  # a share beyond it, of a resample whose original is at chance, tells nothing more


@dataclass(frozen=True, slots=True)
class Retention:
    """Over `n` pairs of answers in `clusters` that share a query or an image; `chance` is None where undefined."""

    n: int
    clusters: int
    original: Interval
    smaller: Interval
    difference: Interval  # smaller minus original
    raw: Interval
    chance: Interval | None

    def verdict(self, goal: float, criterion: Criterion) -> Verdict:
        """pass: the interval of what is kept lies at or above the goal; undefined: the original keeps to chance."""
        if self.chance is None:
            return "undefined"
        kept = self.chance if criterion == "chance" else self.raw
        return "pass" if kept.low >= goal else "fail"

    def to_json(self) -> dict[str, Any]:
        """Intervals as {"estimate", "low", "high"}."""
        names = ("original", "smaller", "difference", "raw", "chance")
        found = {name: getattr(self, name) for name in names}
        return {"n": self.n, "clusters": self.clusters} | {
            name: None if interval is None else interval._asdict() for name, interval in found.items()
        }


def retention(
    original: Sequence[float], smaller: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> Retention:
    """Of pairs, 1 where the right answer was chosen, 1/2 for no choice; ValueError for none or other lengths."""
    if len(original) != len(smaller):
        raise ValueError(f"pairs need equally many values, found {len(original)} and {len(smaller)}")
    t, counts, strata = by_cluster(original, clusters)
    s, _, _ = by_cluster(smaller, clusters)
    size = float(counts.mean())
    more = (np.append(s, [0.0, size]), np.append(t, [size, 0.0]), np.append(counts, [size, size]))
    raw, chance = bootstrap(_shares(s, t, counts), strata, seed, extended=_shares(*more), width=2 * len(s))
    accuracy = clustered_wilson(original, clusters)
    return Retention(
        n=len(original),
        clusters=len(counts),
        original=accuracy,
        smaller=clustered_wilson(smaller, clusters),
        difference=paired_bootstrap(smaller, original, clusters, seed),
        raw=raw,
        chance=chance if accuracy.low > CHANCE else None,
    )


def _shares(s: np.ndarray, t: np.ndarray, counts: np.ndarray) -> Statistic:
    """Sums and counts (C,) -> weights (R, C) -> raw and corrected share (R, 2)."""

    def shares(weights: np.ndarray) -> np.ndarray:
        n = weights @ counts
        small, full = weights @ s / n, weights @ t / n
        return np.stack([_share(small, full), _share(small - CHANCE, full - CHANCE)], axis=1)

    return shares


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; where nothing is there to keep, the lowest number, which no goal is below."""
    known = whole > 0
    return np.where(known, np.clip(part / np.where(known, whole, 1.0), -_FARTHEST, _FARTHEST), -_FARTHEST)
