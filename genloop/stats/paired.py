"""Tests of paired differences in clusters, their standard error, and the difference they can detect.

A cluster is a prompt. Its images are not independent, so flipping the signs of single pairs gives p-values that are too
small. Flipping those of whole prompts (Fisher 1935) is exact under the null hypothesis that the runs are exchangeable.
C = prompts, R = draws.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from genloop.stats.intervals import Interval

NUM_DRAWS = 20_000  # R of the weighted test
POWER = 0.8  # with which a detectable difference is detected
MAX_DRAWS = 1 << 21  # signs drawn at a time, to bound memory
_ROUNDING = 1e-12  # of the largest difference: no difference between prompts


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value (McNemar 1947): `b` pairs where only the one is right, `c` where only the other is."""
    from scipy.special import bdtr

    if b < 0 or c < 0:
        raise ValueError(f"counts must be at least 0, found {b} and {c}")
    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple testing (Holm 1979): the smallest times m, the next times m - 1, ..."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = floor
    return corrected


def sign_flip_test(differences: Sequence[int]) -> float:
    """Two-sided p-value of the sum of whole numbers, one a prompt, under random sign flips; exact."""
    values = [abs(int(value)) for value in differences if value]
    chances = np.ones(1)  # of a sum of -reach, ..., reach
    for value in values:
        longer = np.zeros(len(chances) + 2 * value)
        longer[: len(chances)] += chances / 2
        longer[2 * value :] += chances / 2
        chances = longer
    reach = len(chances) // 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= abs(sum(differences))].sum()))


def weighted_sign_flip_test(differences: Sequence[float], seed: int) -> float:
    """The same for any numbers, by R random sign flips: (1 + number as extreme) / (1 + R)."""
    values = np.array([value for value in differences if value], dtype=np.float64)
    if not len(values):
        return 1.0
    rng = np.random.default_rng(seed)
    limit = abs(values.sum()) * (1 - _ROUNDING)  # equal sums differ in their last bits
    at_a_time, found = max(1, MAX_DRAWS // len(values)), 0
    for start in range(0, NUM_DRAWS, at_a_time):
        signs = rng.integers(0, 2, size=(min(at_a_time, NUM_DRAWS - start), len(values)), dtype=np.int8)
        found += int((np.abs((2.0 * signs - 1) @ values) >= limit).sum())
    return (1 + found) / (1 + NUM_DRAWS)


def standard_error(differences: Sequence[float], counts: Sequence[float]) -> float:
    """Standard error of sum(differences) / sum(counts), estimated from the spread between prompts.

    Where all prompts differ by the same amount, two pseudo-prompts are added, one better and one worse. Infinite for
    a single prompt.
    """
    d, n = np.asarray(differences, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if len(d) < 2:
        return float("inf")
    residuals = d - d.sum() / n.sum() * n
    if np.abs(residuals).max() <= _ROUNDING * np.abs(d).max():
        mean = n.mean()
        d, n = np.append(d, [mean, -mean]), np.append(n, [mean, mean])
        residuals = d - d.sum() / n.sum() * n
    return float(np.sqrt(len(d) / (len(d) - 1) * (residuals @ residuals)) / n.sum())


def mean_difference(differences: Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean of one difference a prompt with its t interval; unbounded for fewer than two, NaN for none."""
    from scipy.special import stdtrit

    if not len(differences):
        return Interval(float("nan"), -float("inf"), float("inf"))
    mean = float(np.mean(differences))
    error = standard_error(differences, [1.0] * len(differences))
    half = error * float(stdtrit(max(1, len(differences) - 1), (1 + level) / 2))
    return Interval(mean, mean - half, mean + half)


def detectable(error: float, freedom: int, *, step: float = 0, level: float = 0.95) -> float:
    """The true difference that a two-sided t-test detects with POWER, given standard error and degrees of freedom.

    With m tests, corrected for their number, `level` is 1 - 0.05 / m. `step` is half the distance between two possible
    values of the difference, by which an exact test is conservative.
    """
    from scipy.special import stdtrit

    if not np.isfinite(error) or freedom < 1:
        return float("inf")
    critical = float(stdtrit(freedom, (1 + level) / 2))
    return error * (critical + NormalDist().inv_cdf(POWER)) + step
