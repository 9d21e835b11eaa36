"""Tests of paired differences whose pairs come in clusters, and what they could have found.

A cluster is a prompt: its images are not independent, so a test that turns single pairs around finds too much. Turning
whole prompts around (Fisher 1935) is exact under the null hypothesis that which run is which does not matter.
C = prompts, R = draws.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

MAX_DRAWS = 1 << 21  # signs drawn at a time, to bound memory


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value (McNemar 1947): `b` pairs where only the one is right, `c` where only the other is."""
    from scipy.special import bdtr

    if b < 0 or c < 0:
        raise ValueError(f"counts must be at least 0, found {b} and {c}")
    return min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979): the smallest counts m times, the next m - 1 times, ..."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = floor
    return corrected


def sign_flip_test(differences: Sequence[int]) -> float:
    """Two-sided p-value of the sum of whole numbers, one a prompt, when each may bear the other sign; exact."""
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


def weighted_sign_flip_test(differences: Sequence[float], seed: int, *, num_draws: int = 20_000) -> float:
    """The same of any numbers, from random signs: (1 + as extreme) / (1 + R), which is never 0."""
    values = np.array([value for value in differences if value], dtype=np.float64)
    if not len(values):
        return 1.0
    rng = np.random.default_rng(seed)
    limit = abs(values.sum()) * (1 - 1e-12)  # equal sums differ in their last bits
    at_a_time, found = max(1, MAX_DRAWS // len(values)), 0
    for start in range(0, num_draws, at_a_time):
        signs = rng.integers(0, 2, size=(min(at_a_time, num_draws - start), len(values)), dtype=np.int8)
        found += int((np.abs((2.0 * signs - 1) @ values) >= limit).sum())
    return (1 + found) / (1 + num_draws)


def standard_error(differences: Sequence[float], counts: Sequence[float]) -> float:
    """Of sum(differences) / sum(counts) over prompts, from the spread between prompts.

    Where all prompts differ by the same amount two more are thought of, one better and one worse. Infinite for one.
    """
    d, n = np.asarray(differences, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if len(d) < 2:
        return float("inf")
    residuals = d - d.sum() / n.sum() * n
    if not residuals.any():
        mean = n.mean()
        d, n = np.append(d, [mean, -mean]), np.append(n, [mean, mean])
        residuals = d - d.sum() / n.sum() * n
    return float(np.sqrt(len(d) / (len(d) - 1) * (residuals @ residuals)) / n.sum())


def detectable(error: float, freedom: int, *, step: float = 0, power: float = 0.8, level: float = 0.95) -> float:
    """The true difference that a two-sided test finds with that power, given the standard error and its freedom.

    Of one of m claims, corrected for their number, `level` is 1 - 0.05 / m.

    `step`: half the distance between two values that the difference can have, which an exact test cannot use up.
    """
    from scipy.special import stdtrit

    if not np.isfinite(error) or freedom < 1:
        return float("inf")
    critical = float(stdtrit(freedom, (1 + level) / 2))
    return error * (critical + NormalDist().inv_cdf(power)) + step
