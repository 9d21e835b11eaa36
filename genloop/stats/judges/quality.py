"""How good a judge is: accuracy, area under the ROC curve, calibration; each with n and an interval over prompts.

Labels may be soft: 0.75 counts as three quarters of a yes and one quarter of a no. The pooled AUC mixes two things, how
hard prompts are and which image of a prompt is better; a search only uses the second, which is what the AUC within
prompts measures (0.5 = useless there, however high the pooled one). Intervals resample prompts, since images of one
prompt are not independent. n = answers, C = clusters (prompts), R = resamples.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.stats.intervals import Interval, cluster_bootstrap, clustered_wilson, wilson

NUM_BINS = 10
NUM_RESAMPLES = 1000
_LEVEL = 0.95
_MAX_CELLS = 1 << 22  # numbers held at a time while resampling


@dataclass(frozen=True, slots=True)
class JudgeAnswers:
    """JudgeAnswers of a judge: labels (n,) and p_yes (n,) in [0, 1], the prompt of each, and who is compared with whom.

    `groups` (default: `prompts`) are the images of one prompt that a search would choose among, e.g. at one step.
    """

    labels: np.ndarray
    p_yes: np.ndarray
    prompts: Sequence[Hashable]
    groups: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.labels), len(self.p_yes), len(self.prompts), len(self.groups or self.prompts)}
        if len(sizes) != 1 or not len(self.labels):
            raise ValueError(f"labels, p_yes, prompts and groups must be equally many and not empty, found {sizes}")
        if not all(((x >= 0) & (x <= 1)).all() for x in (self.labels, self.p_yes)):
            raise ValueError("labels and p_yes must be in [0, 1]")


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: the answers whose p_yes is in [low, high), and how often yes was right."""

    low: float
    high: float
    n: int
    p_yes: float
    yes: Interval


def accuracy(answers: JudgeAnswers) -> Interval:
    """The share of answers on the right side of one half."""
    right = (answers.p_yes >= 0.5) == (answers.labels >= 0.5)
    return clustered_wilson(right.astype(float).tolist(), answers.prompts)


def area_under_curve(labels: np.ndarray, p_yes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """P(a yes scores above a no), ties one half: labels, p_yes (n,), weights (..., n) -> (...); NaN without a pair.

    An answer is never compared with itself, which matters for soft labels only.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    order = np.argsort(p_yes, kind="stable")
    yes, p = labels[order], p_yes[order]
    weight = weights[..., order]
    positive, negative = weight * yes, weight * (1 - yes)
    starts = np.flatnonzero(np.r_[True, p[1:] != p[:-1]])  # runs of equal scores
    positive_run = np.add.reduceat(positive, starts, axis=-1)
    negative_run = np.add.reduceat(negative, starts, axis=-1)
    below = np.cumsum(negative_run, axis=-1) - negative_run
    itself = (positive * negative).sum(-1)
    won = (positive_run * (below + negative_run / 2)).sum(-1) - itself / 2
    pairs = positive.sum(-1) * negative.sum(-1) - itself
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 1e-12, won / pairs, np.nan)


def auc(answers: JudgeAnswers, seed: int) -> Interval | None:
    """The AUC over all pairs of answers; None when all labels are the same."""
    estimate = float(area_under_curve(answers.labels, answers.p_yes))
    if np.isnan(estimate):
        return None
    clusters, num_clusters = _numbered(answers.prompts)
    drawn = [
        area_under_curve(answers.labels, answers.p_yes, counts[:, clusters].astype(float))
        for counts in _resamples(num_clusters, seed, len(answers.labels))
    ]
    return _percentiles(estimate, np.concatenate(drawn), num_clusters)


def auc_within(answers: JudgeAnswers, seed: int) -> tuple[Interval | None, int]:
    """The mean over groups of the AUC inside each -> (it, how many groups have a yes and a no)."""
    groups, num_groups = _numbered(answers.groups or answers.prompts)
    order = np.argsort(groups, kind="stable")
    values, prompts = [], []
    starts = np.searchsorted(groups[order], np.arange(1, num_groups))
    for rows in (part.tolist() for part in np.split(order, starts)):
        value = float(area_under_curve(answers.labels[rows], answers.p_yes[rows]))
        if not np.isnan(value):
            values.append(value)
            prompts.append(answers.prompts[rows[0]])
    if not values:
        return None, 0
    found = cluster_bootstrap(values, prompts, seed, num_resamples=NUM_RESAMPLES)
    return _or_wilson(found, len(set(prompts))), len(values)


def calibration_error(answers: JudgeAnswers, seed: int, *, num_bins: int = NUM_BINS) -> Interval:
    """Expected calibration error (Naeini et al. 2015): mean |share of yes - mean p_yes| over bins of equal width.

    The interval is that of the plug-in estimate, which is never below 0 and biased upwards when bins are small.
    """
    clusters, num_clusters = _numbered(answers.prompts)
    gaps = np.zeros((num_clusters, num_bins))
    np.add.at(gaps, (clusters, _bins(answers.p_yes, num_bins)), answers.labels - answers.p_yes)
    sizes = np.bincount(clusters, minlength=num_clusters).astype(float)
    estimate = np.abs(gaps.sum(0)).sum() / sizes.sum()
    drawn = [np.abs(counts @ gaps).sum(1) / (counts @ sizes) for counts in _resamples(num_clusters, seed, num_clusters)]
    return _percentiles(float(estimate), np.concatenate(drawn), num_clusters)


def reliability(answers: JudgeAnswers, *, num_bins: int = NUM_BINS) -> list[Bin]:
    """The bars of a reliability diagram, empty bins left out."""
    place = _bins(answers.p_yes, num_bins)
    bars = []
    for number in np.unique(place).tolist():
        rows = np.flatnonzero(place == number).tolist()
        yes = clustered_wilson(answers.labels[rows].tolist(), [answers.prompts[row] for row in rows])
        low, high = float(number) / num_bins, float(number + 1) / num_bins
        bars.append(Bin(low, high, len(rows), float(answers.p_yes[rows].mean()), yes))
    return bars


def fit_platt(labels: np.ndarray, margins: np.ndarray) -> tuple[float, float]:
    """Platt scaling (Platt 1999): (a, b) of P(yes) = sigmoid(a * margin + b), with Platt's targets for few labels.

    Newton's method with halved steps on the mean cross-entropy plus 1e-4 of (a - 1)^2 + b^2, which keeps separable
    labels finite.
    """
    num_yes, num_no = labels.sum(), (1 - labels).sum()
    target = labels * (num_yes + 1) / (num_yes + 2) + (1 - labels) / (num_no + 2)
    design = np.stack([margins, np.ones_like(margins)], axis=1).astype(np.float64)  # (n, 2)
    prior, ridge = np.array([1.0, 0.0]), 1e-4

    def cost(theta: np.ndarray) -> float:
        x = design @ theta
        return float(np.mean(np.logaddexp(0, x) - target * x)) + ridge / 2 * float(((theta - prior) ** 2).sum())

    theta = prior.copy()
    for _ in range(100):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - target) / len(labels) + ridge * (theta - prior)
        hessian = (design * (p * (1 - p))[:, None]).T @ design / len(labels) + ridge * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while np.abs(step).max() > 1e-10 and cost(theta - step) > cost(theta):
            step = step / 2
        theta = theta - step
        if np.abs(step).max() <= 1e-10:
            break
    return float(theta[0]), float(theta[1])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def describe(answers: JudgeAnswers, seed: int) -> dict[str, Any]:
    """Every number of this module as plain values: intervals are [estimate, low, high], None where undefined."""
    within, num_groups = auc_within(answers, seed)
    pooled = auc(answers, seed)
    return {
        "n": len(answers.labels),
        "prompts": len(set(answers.prompts)),
        "yes": float(answers.labels.mean()),
        "accuracy": list(accuracy(answers)),
        "auc": None if pooled is None else list(pooled),
        "auc_within": None if within is None else list(within),
        "groups_within": num_groups,
        "ece": list(calibration_error(answers, seed)),
        "reliability": [
            {"low": bar.low, "high": bar.high, "n": bar.n, "p_yes": bar.p_yes, "yes": list(bar.yes)}
            for bar in reliability(answers)
        ],
    }


def _bins(p_yes: np.ndarray, num_bins: int) -> np.ndarray:
    return np.minimum((p_yes * num_bins).astype(np.int64), num_bins - 1)


def _numbered(names: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Names -> (their numbers in order of appearance (n,), how many there are)."""
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    return index, len(numbers)


def _resamples(num_clusters: int, seed: int, width: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each resample, (r, C) at a time, R rows in all; each r * width is bounded."""
    rng = np.random.default_rng(seed)
    at_a_time = max(1, _MAX_CELLS // max(width, num_clusters))
    for start in range(0, NUM_RESAMPLES, at_a_time):
        size = min(at_a_time, NUM_RESAMPLES - start)
        yield rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=size)


def _percentiles(estimate: float, drawn: np.ndarray, num_clusters: int) -> Interval:
    low, high = np.nanquantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return _or_wilson(Interval(estimate, float(low), float(high)), num_clusters)


def _or_wilson(found: Interval, num_clusters: int) -> Interval:
    """Where drawing prompts again changes nothing, as when all are ranked right: Wilson's, a prompt being one trial."""
    if found.low < found.high:
        return found
    return wilson(min(1.0, max(0.0, found.estimate)) * num_clusters, num_clusters)
