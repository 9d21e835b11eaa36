"""How far two sets of images are apart, by their features: FID, KID, CMMD. All in float64.

FID (Heusel et al. 2017) compares two Gaussians, KID (Binkowski et al. 2018) and CMMD (Jayasumana et al. 2024) are
maximum mean discrepancies. FID and CMMD are too large by an amount that falls as 1 / n; leaving out one group of images
at a time (the jackknife of Quenouille and Tukey) tells both that bias and the standard error. Images of one cluster (a
prompt) stay in one group. N, M = images, D = features, G = groups.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

NUM_GROUPS = 10
MIN_CLUSTERS = 4  # for KID, which leaves out half of them at a time
_BLOCK = 2048  # rows of a kernel matrix that are in memory at a time


class Distance(NamedTuple):
    """A distance with its 95 % interval for sampling error alone; `bias` is what it is too large by, None: unknown."""

    value: float
    low: float
    high: float
    bias: float | None


class Gaussian(NamedTuple):
    """The mean (D,) and covariance (D, D) of features."""

    mean: np.ndarray
    covariance: np.ndarray


class Moments:
    """Count, mean and scatter of rows that come in blocks; float64, without the cancellation of raw sums."""

    def __init__(self, size: int) -> None:
        self.count, self.mean, self.scatter = 0, np.zeros(size), np.zeros((size, size))

    def add(self, rows: np.ndarray) -> None:
        """Rows (N, D)."""
        values = rows.astype(np.float64)
        if len(values):
            mean = values.mean(axis=0)
            centered = values - mean
            self._merge(len(values), mean, centered.T @ centered)

    def join(self, other: "Moments") -> None:
        """All rows of another one (Chan, Golub and LeVeque 1979)."""
        if other.count:
            self._merge(other.count, other.mean, other.scatter)

    def gaussian(self) -> Gaussian:
        """With the unbiased covariance; ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, found {self.count}")
        return Gaussian(self.mean, self.scatter / (self.count - 1))

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.count + count
        step = mean - self.mean
        self.scatter += scatter + np.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


class GroupedMoments:
    """Moments of G groups of images, for estimates with one group left out."""

    def __init__(self, size: int, num_groups: int = NUM_GROUPS) -> None:
        self.groups = [Moments(size) for _ in range(num_groups)]

    @property
    def count(self) -> int:
        """Rows so far."""
        return sum(group.count for group in self.groups)

    def add(self, rows: np.ndarray, clusters: np.ndarray) -> None:
        """Rows (N, D) of these clusters (N,): whole numbers."""
        for number, group in enumerate(self.groups):
            group.add(rows[clusters % len(self.groups) == number])

    def gaussian(self, left_out: int | None = None) -> Gaussian:
        """Of all groups, or of all but one."""
        total = Moments(len(self.groups[0].mean))
        for number, group in enumerate(self.groups):
            if number != left_out:
                total.join(group)
        return total.gaussian()

    def is_usable(self) -> bool:
        """Whether every group has rows, so that leaving one out changes something."""
        return all(group.count for group in self.groups)


def frechet(a: Gaussian, b: Gaussian) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)); the last trace is that of the root of A^(1/2) B A^(1/2)."""
    _check_sizes(len(a.mean), len(b.mean))
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = root @ b.covariance @ root
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0)).sum()
    step = a.mean - b.mean
    return float(max(0.0, step @ step + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared))


def fid(images: GroupedMoments, reference: GroupedMoments | Gaussian) -> Distance:
    """The Frechet distance; of mere moments nobody knows the bias that they bring, and it is not counted."""
    groups = reference if isinstance(reference, GroupedMoments) else None
    whole = reference.gaussian() if isinstance(reference, GroupedMoments) else reference
    value = frechet(images.gaussian(), whole)
    if not images.is_usable() or (groups and not groups.is_usable()):
        return Distance(value, float("nan"), float("nan"), None)
    parts = [frechet(images.gaussian(g), groups.gaussian(g) if groups else whole) for g in range(len(images.groups))]
    return jackknife(value, parts)


def polynomial_mmd(x: np.ndarray, x_clusters: np.ndarray, y: np.ndarray, y_clusters: np.ndarray) -> float:
    """KID of (N, D) and (M, D): the unbiased squared MMD with the kernel (x . y / D + 1)^3. May be below 0.

    Two images of one cluster are alike whatever the model, so they are no pair, just as an image and itself are none.
    """
    _check_sizes(x.shape[1], y.shape[1])
    x, y = x.astype(np.float64), y.astype(np.float64)
    within = []
    for rows, clusters in ((x, x_clusters), (y, y_clusters)):
        pairs = clusters[:, None] != clusters
        if not pairs.any():
            raise ValueError("KID needs images of at least 2 prompts on each side")
        within.append(float(_cubic(rows, rows)[pairs].mean()))
    return sum(within) - 2 * float(_cubic(x, y).mean())


def kid(
    x: np.ndarray,
    x_clusters: np.ndarray,
    y: np.ndarray,
    y_clusters: np.ndarray,
    seed: int,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> Distance:
    """The mean of KID over subsets of whole clusters, each at most half of the smaller set.

    The standard error is that of the delete-d jackknife (Shao and Wu 1989): the spread of the subsets times
    sqrt(s / (1 - s)), with s the share that a subset has of its set. Of the two sides the larger share counts, which
    overstates it where the other set is larger.
    """
    size = min(subset_size, min(len(x), len(y)) // 2)
    if min(len(np.unique(clusters)) for clusters in (x_clusters, y_clusters)) < MIN_CLUSTERS:
        raise ValueError(f"KID needs images of at least {MIN_CLUSTERS} prompts on each side")
    found, drawn = [], np.zeros(2)
    for number in range(num_subsets):
        rng = np.random.default_rng([seed, number])
        ours, theirs = (_draw(clusters, size, rng) for clusters in (x_clusters, y_clusters))
        found.append(polynomial_mmd(x[ours], x_clusters[ours], y[theirs], y_clusters[theirs]))
        drawn += len(ours), len(theirs)
    value, share = float(np.mean(found)), float((drawn / num_subsets / (len(x), len(y))).max())
    error = float(np.std(found)) * np.sqrt(share / (1 - share))
    return Distance(value, value - _normal() * error, value + _normal() * error, 0.0)


def cmmd(
    x: np.ndarray,
    x_clusters: np.ndarray,
    y: np.ndarray,
    y_clusters: np.ndarray,
    *,
    sigma: float = 10.0,
    scale: float = 1000.0,
    num_groups: int = NUM_GROUPS,
) -> Distance:
    """CMMD of (N, D) and (M, D): `scale` times the squared MMD, Gaussian kernel, diagonals included, as published."""
    _check_sizes(x.shape[1], y.shape[1])
    sides = [
        (_by_group(rows.astype(np.float64), clusters, num_groups))
        for rows, clusters in ((x, x_clusters), (y, y_clusters))
    ]
    counts = [np.array([len(rows) for rows in side], dtype=np.float64) for side in sides]
    sums = [[_kernel_sums(a, b, sigma) for b in sides] for a in sides]  # [2][2] of (G, G)

    def of(kept: np.ndarray) -> float:
        sizes = [float(kept @ count) for count in counts]
        means = [[kept @ sums[i][j] @ kept / (sizes[i] * sizes[j]) for j in range(2)] for i in range(2)]
        return scale * float(means[0][0] + means[1][1] - 2 * means[0][1])

    value = of(np.ones(num_groups))
    if any((count == 0).any() for count in counts):
        return Distance(value, float("nan"), float("nan"), None)
    return jackknife(value, [of(1.0 - np.eye(num_groups)[g]) for g in range(num_groups)])


def jackknife(value: float, left_out: Sequence[float]) -> Distance:
    """An estimate with its interval and bias, from the estimates with one of G groups left out."""
    from scipy.special import stdtrit

    parts = np.asarray(left_out, dtype=np.float64)
    num = len(parts)
    mean = float(parts.mean())
    error = float(np.sqrt((num - 1) / num * ((parts - mean) ** 2).sum()))
    half = float(stdtrit(num - 1, 0.975)) * error
    return Distance(value, value - half, value + half, (num - 1) * (mean - value))


def grouped_moments(blocks: Iterable[tuple[np.ndarray, np.ndarray]], num_groups: int = NUM_GROUPS) -> GroupedMoments:
    """Of blocks of rows (N, D) with their clusters (N,), one block in memory at a time. ValueError without any."""
    found: GroupedMoments | None = None
    for rows, clusters in blocks:
        found = found or GroupedMoments(rows.shape[1], num_groups)
        found.add(rows, clusters)
    if found is None:
        raise ValueError("no features: there are no images")
    return found


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _draw(clusters: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Clusters of rows (N,) -> the rows (about `size`,) of as many clusters as fit, at least two."""
    names, counts = np.unique(clusters, return_counts=True)
    order = rng.permutation(len(names))
    num = max(2, int(np.searchsorted(np.cumsum(counts[order]), size, side="right")))
    return np.flatnonzero(np.isin(clusters, names[order[:num]]))


def _by_group(rows: np.ndarray, clusters: np.ndarray, num_groups: int) -> list[np.ndarray]:
    return [rows[clusters % num_groups == number] for number in range(num_groups)]


def _kernel_sums(a: Sequence[np.ndarray], b: Sequence[np.ndarray], sigma: float) -> np.ndarray:
    """Two sides in G groups -> (G, G): sums of exp(-d^2 / (2 sigma^2)) - 1. The ones cancel in an MMD, whose terms are
    all close to 1, so they are left out for the sake of the digits behind them.
    """
    found = np.zeros((len(a), len(b)))
    for i, rows in enumerate(a):
        for j, others in enumerate(b):
            for start in range(0, len(rows), _BLOCK):
                part = rows[start : start + _BLOCK]
                squares = (part**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * part @ others.T
                found[i, j] += np.expm1(-np.maximum(squares, 0) / (2 * sigma**2)).sum()
    return found


def _check_sizes(ours: int, theirs: int) -> None:
    if ours != theirs:
        raise ValueError(f"features of {ours} and of {theirs} numbers cannot be compared; use one extractor for both")


def _normal() -> float:
    """The normal quantile of a 95 % interval."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.975)
