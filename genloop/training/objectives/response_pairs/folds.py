"""Folds of pairs that share neither a question nor an image (group K-fold). No torch."""

from collections.abc import Sequence

import numpy as np

from genloop.data.responses.pair import ResponsePair, ResponsePairs


def joined(parts: Sequence[ResponsePairs]) -> ResponsePairs:
    """Several collections as one, in order; ids say which one a pair is from where there are several."""
    places = [(part, number) for part in parts for number in range(len(part))]
    found: list[ResponsePair] = [part[number] for part, number in places]

    def image_bytes(place: int) -> bytes | None:
        part, number = places[place]
        return part.image_bytes(number)

    where = " + ".join(part.where for part in parts)
    return ResponsePairs(found, image_bytes, where=where, left_out=sum(part.left_out for part in parts))


def folds_of(groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Groups (N,) -> folds (N,), no group in two of them: the largest group first, each into the smallest fold.

    Equal groups are in an order keyed by the seed. ValueError where there are fewer groups than folds.
    """
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < num_folds:
        raise ValueError(
            f"pairs.num_folds: {num_folds}, but the pairs have {len(names)} groups that share no question and no image"
        )
    sizes = np.bincount(members)
    order = np.random.default_rng([seed, 5]).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.empty(len(names), dtype=np.int64), np.zeros(num_folds, dtype=np.int64)
    for group in order:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[members]


def shuffled(best: np.ndarray, seed: int) -> np.ndarray:
    """Places of the better answers (N,) -> others, drawn by chance: what a control learns from."""
    return np.random.default_rng([seed, 6]).integers(0, 2, len(best))
