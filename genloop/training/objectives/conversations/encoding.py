"""Conversations as ids, and which of them enter the loss: every token of an answer and the one that closes it.

The same rule for chats of judges (genloop/training/objectives/judge) and of chat models.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import Tensor

Encode = Callable[[str], Sequence[int]]
Ids = Sequence[int] | np.ndarray


def encode_pieces(encode: Encode, pieces: Iterable[tuple[str, bool]]) -> tuple[list[int], list[range]]:
    """(text, whether it is an answer) in order -> ids, and the range of each answer in them.

    Pieces are tokenised one by one, as an answer is generated behind its prompt.
    """
    ids: list[int] = []
    answers = []
    for text, is_answer in pieces:
        start = len(ids)
        ids += encode(text)
        if is_answer:
            answers.append(range(start, len(ids)))
    return ids, answers


def supervised_places(answers: Iterable[range], num_ids: int) -> list[int]:
    """Places whose next id enters the loss: those in front of each token of an answer and of the one behind it."""
    return [place for answer in answers for place in range(answer.start - 1, answer.stop) if place + 1 < num_ids]


def next_tokens(
    ids: Sequence[int] | np.ndarray, places: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> ids to read (n,), places (m,), and what follows them (m,); the last of `ids` is a target only."""
    targets = np.array([ids[place + 1] for place in places], dtype=np.int64)
    return np.array(ids[:-1], dtype=np.int64), np.array(places, dtype=np.int64), targets


def word_losses(log_p: Tensor, targets: Tensor) -> Tensor:
    """Log probabilities (K, V), next ids (K,) -> cross-entropy of each (K,)."""
    return -log_p.gather(1, targets[:, None])[:, 0]
