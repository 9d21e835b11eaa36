"""How good a judge is: accuracy, area under the ROC curve, calibration; each with n and an interval over prompts.

Labels may be soft: 0.75 counts as three quarters of a yes and one quarter of a no. The pooled AUC mixes how
hard prompts are with which image of a prompt is better. A search uses only the second, which the AUC within prompts
measures (0.5 = no information, however high the pooled AUC). Intervals resample prompts, since images of one
prompt are not independent. n = answers, C = clusters (prompts), R = resamples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.stats.clusters import numbered
from genloop.stats.intervals import Interval, clustered_wilson
from genloop.stats.resampling import bootstrap, cluster_bootstrap

NUM_BINS = 10
NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class JudgeAnswers:
    """JudgeAnswers of a judge: labels (n,) and p_yes (n,) in [0, 1], the prompt of each, and its comparison group.

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
    index, names = numbered(answers.prompts)
    half = len(index) / len(names) / 2  # answers of an average prompt, half of them yes
    labels, p_yes = np.append(answers.labels, [1, 0, 1, 0]), np.append(answers.p_yes, [1, 0, 0, 1])

    def area(weights: np.ndarray) -> np.ndarray:
        return area_under_curve(answers.labels, answers.p_yes, weights[:, index])

    def extended(weights: np.ndarray) -> np.ndarray:  # by a prompt ranked right and one ranked wrong
        more = half * np.repeat(weights[:, -2:], 2, axis=1)
        return area_under_curve(labels, p_yes, np.hstack([weights[:, index], more]))

    strata = np.zeros(len(names), dtype=int)
    return bootstrap(area, strata, seed, extended=extended, num_resamples=NUM_RESAMPLES, width=len(labels))[0]


def auc_within(answers: JudgeAnswers, seed: int) -> tuple[Interval | None, int]:
    """The mean over groups of the AUC inside each -> (it, how many groups have a yes and a no)."""
    groups, names = numbered(answers.groups or answers.prompts)
    order = np.argsort(groups, kind="stable")
    values, prompts = [], []
    starts = np.searchsorted(groups[order], np.arange(1, len(names)))
    for rows in (part.tolist() for part in np.split(order, starts)):
        value = float(area_under_curve(answers.labels[rows], answers.p_yes[rows]))
        if not np.isnan(value):
            values.append(value)
            prompts.append(answers.prompts[rows[0]])
    if not values:
        return None, 0
    return cluster_bootstrap(values, prompts, seed, ends=(0.0, 1.0), num_resamples=NUM_RESAMPLES), len(values)


def calibration_error(answers: JudgeAnswers, seed: int) -> Interval:
    """Expected calibration error (Naeini et al. 2015): mean |share of yes - mean p_yes| over bins of equal width.

    The interval is that of the plug-in estimate, which is never below 0 and biased upwards when bins are small.
    """
    index, names = numbered(answers.prompts)
    gaps = np.zeros((len(names), NUM_BINS))
    np.add.at(gaps, (index, _bins(answers.p_yes)), answers.labels - answers.p_yes)
    sizes = np.bincount(index).astype(float)
    ends = np.zeros((2, NUM_BINS))  # a prompt without any gap, and one that is all wrong where the gap is largest
    total = gaps.sum(axis=0)
    ends[1, np.abs(total).argmax()] = np.copysign(sizes.mean(), total[np.abs(total).argmax()])

    def error(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ gaps).sum(axis=1) / (weights @ sizes)

    def extended(weights: np.ndarray) -> np.ndarray:
        total = weights[:, :-2] @ gaps + weights[:, -2:] @ ends
        return np.abs(total).sum(axis=1) / (weights @ np.append(sizes, [sizes.mean()] * 2))

    strata = np.zeros(len(names), dtype=int)
    return bootstrap(error, strata, seed, extended=extended, num_resamples=NUM_RESAMPLES)[0]


def reliability(answers: JudgeAnswers) -> list[Bin]:
    """The bars of a reliability diagram, empty bins left out."""
    place = _bins(answers.p_yes)
    bars = []
    for number in np.unique(place).tolist():
        rows = np.flatnonzero(place == number).tolist()
        yes = clustered_wilson(answers.labels[rows].tolist(), [answers.prompts[row] for row in rows])
        low, high = float(number) / NUM_BINS, float(number + 1) / NUM_BINS
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


def _bins(p_yes: np.ndarray) -> np.ndarray:
    return np.minimum((p_yes * NUM_BINS).astype(np.int64), NUM_BINS - 1)
