"""How much better an image is than the others of its prompt.

P = groups, G = images of a group.
"""

import numpy as np

_EQUAL = 1e-8  # a deviation below it is none


def group_advantages(scores: np.ndarray, *, by_std: bool) -> tuple[np.ndarray, np.ndarray]:
    """scores (P, G) -> advantages (P, G), which groups are kept (P,).

    Dropped are groups whose scores are all equal, which say nothing, and those with an image that has no score; their
    advantages are 0.
    """
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = scores.std(axis=1)
    kept = np.isfinite(deviation) & (deviation > _EQUAL)
    advantages = centred / np.where(kept, deviation, 1)[:, None] if by_std else centred
    return np.where(kept[:, None], advantages, 0.0), kept


def shuffled(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(P, G): the scores of each group in a random order."""
    return rng.permuted(scores, axis=1)
