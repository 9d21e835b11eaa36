"""The pairs of a training: read, cut into folds, and found fit for the model before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.data.responses.pair import ResponsePairs
from genloop.data.responses.read import open_pairs
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.images import Pictures
from genloop.training.objectives.conversations.audit import Audit, audit
from genloop.training.objectives.conversations.settings import ChatData, ChatSettings
from genloop.training.objectives.response_pairs.folds import folds_of, joined, shuffled
from genloop.training.objectives.response_pairs.held_out import HeldOutPairs
from genloop.training.objectives.response_pairs.rows import ResponseRows
from genloop.training.objectives.response_pairs.settings import PairSettings


@dataclass(frozen=True, eq=False)
class ResponseSides:
    """`rows` holds all pairs; `kept` are the places of those that are trained on."""

    rows: ResponseRows
    kept: list[int]
    held_out: HeldOutPairs
    audit: Audit
    folds: np.ndarray  # (N,)

    @property
    def report(self) -> dict[str, Any]:
        """What is learned from, for RUN/supervision.json."""
        sizes = np.bincount(self.folds).tolist()
        counts = {"pairs": len(self.rows), "trained on": len(self.kept), "held out": len(self.held_out)}
        return self.audit.report | {"pairs": counts, "fold_sizes": sizes}

    @property
    def digests(self) -> dict[str, str]:
        """What enters the fingerprint."""
        return {"images of pairs": self.rows.pairs.images_sha()}


def open_all(data: Mapping[str, ChatData]) -> ResponsePairs:
    """The pairs of every data set in order; FileNotFoundError or ValueError in one line that names the key."""
    found = []
    for name, one in data.items():
        if one.pairs is None:
            raise ValueError(f"data.{name}: objective=pairs needs data.{name}.pairs")
        try:
            pairs = open_pairs(one.pairs)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"data.{name}.pairs: {error}") from None
        if pairs.drawn(0):
            raise ValueError(f"data.{name}.pairs: its answers are images; objective=pairs compares texts")
        if one.limit is not None and one.limit < len(pairs):
            first = [pairs[number] for number in range(one.limit)]
            pairs = ResponsePairs(first, pairs.image_bytes, where=pairs.where, left_out=pairs.left_out)
        found.append(pairs)
    return joined(found) if len(found) > 1 else found[0]


def read_pairs(
    data: Mapping[str, ChatData],
    chat: Chat,
    pictures: Pictures | None,
    chats: ChatSettings,
    settings: PairSettings,
    *,
    most: int,
    seed: int,
) -> ResponseSides:
    """Every pair tokenised once; at the most `most` held-out ones are measured. ValueError in one line."""
    if settings.fold >= settings.num_folds:
        raise ValueError(f"pairs.fold: {settings.fold}, but pairs.num_folds={settings.num_folds} counts from 0")
    if chats.too_long == "cut":
        raise ValueError("chat.too_long: cut would cut the question of two answers at two places; use refuse or drop")
    pairs = open_all(data)
    folds = folds_of(pairs.leak_groups(), settings.num_folds, seed)
    is_held_out = folds == settings.fold
    best = np.array([pair.best for pair in pairs])
    if settings.shuffle_labels:
        best = np.where(is_held_out, best, shuffled(best, seed))
    rows = ResponseRows(pairs, best, chat, pictures, chats, settings.loss)
    found = audit(rows.documents)
    fits = np.bincount(found.kept // 2, minlength=len(pairs)) == 2
    kept, measured = ((fits & side).nonzero()[0] for side in (~is_held_out, is_held_out))
    if not len(kept) or not len(measured):
        raise ValueError(f"data: {len(kept)} pairs to train on and {len(measured)} held out are not too long")
    measured = measured[np.linspace(0, len(measured) - 1, min(most, len(measured))).round().astype(int)]
    held_out = HeldOutPairs(rows, measured.tolist(), pairs.clusters()[measured].tolist())
    return ResponseSides(rows, kept.tolist(), held_out, found, folds)
