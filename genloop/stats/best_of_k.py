"""Best-of-k for every k <= N from one pool of N scored candidates: unbiased, no candidate is drawn twice.

Of the k-subsets of a pool C(i-1, k-1) / C(N, k) have their highest score at rank i from below, so a single pool gives
the expected value of the best for all k at once, with far less variance than drawing k anew. Ties are broken with
equal chances, as taking the first does when candidates are exchangeable.
N = candidates of a pool, K = the largest k.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np


def best_of_k(scores: Sequence[float], values: Sequence[float], max_k: int | None = None) -> np.ndarray:
    """-> (K,): the expected value of the candidate with the highest score among k of the pool, k = 1..K (default N).

    A score that is NaN (not judged) is below all others. ValueError unless 1 <= max_k <= N.
    """
    if len(scores) != len(values):
        raise ValueError(f"every candidate needs a score and a value, found {len(scores)} and {len(values)}")
    pool_size = len(scores)
    max_k = pool_size if max_k is None else max_k
    if not 1 <= max_k <= pool_size:
        raise ValueError(f"k must be between 1 and the {pool_size} candidates of the pool, found {max_k}")
    known = np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    _, group, sizes = np.unique(known, return_inverse=True, return_counts=True)  # equal scores, lowest first
    means = np.bincount(group, weights=np.asarray(values, dtype=np.float64)) / sizes
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    chances = np.diff(all_below(pool_size)[:max_k, bounds])  # (K, groups): the best lies in this group
    return chances @ means


def ceiling(values: Sequence[float], max_k: int | None = None) -> np.ndarray:
    """-> (K,): what a judge that knows the values would reach; of right and wrong: P(any right among k)."""
    return best_of_k(values, values, max_k)


@cache
def all_below(pool_size: int) -> np.ndarray:
    """(N, N + 1): at [k - 1, i] the chance C(i, k) / C(N, k) that k drawn candidates are all among the i lowest."""
    lowest = np.arange(pool_size + 1, dtype=np.float64)
    chances = np.empty((pool_size, pool_size + 1))
    below = np.ones(pool_size + 1)
    for drawn in range(pool_size):
        below = below * np.maximum(lowest - drawn, 0) / (pool_size - drawn)
        chances[drawn] = below
    chances.setflags(write=False)
    return chances
