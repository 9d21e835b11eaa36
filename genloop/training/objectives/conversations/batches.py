"""Rows of documents as tensors: a micro-batch of training on conversations. Made in loader processes.

B = rows, L = tokens of the longest row, K = tokens with a loss. Positions begin at 0 in every document, and in what
fills a row up, which is a document that nobody looks at: so no mask is needed, see `packed_hidden`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from genloop.training.objectives.conversations.documents import Document


@dataclass(frozen=True, eq=False)
class ChatBatch:
    """What the loss of some rows needs; `images` are those of all rows in order."""

    ids: Tensor  # (B, L)
    positions: Tensor  # (B, L) or (4, B, L)
    rows: Tensor  # (K,) place of each token with a loss
    columns: Tensor  # (K,)
    targets: Tensor  # (K,) the id that follows it
    pixels: list[Tensor]
    grids: tuple[tuple[int, int, int], ...]
    questions: list[Tensor] = field(default_factory=list)  # about each image, where the model reads them
    sources: tuple[int, ...] = ()  # tokens of each row that an encoder reads; none: there is no encoder


def collate(rows: Sequence[Sequence[Document]]) -> ChatBatch:
    """Rows of documents -> a batch."""
    longest = max(sum(map(len, row)) for row in rows)
    planes = 1 if rows[0][0].positions.ndim == 1 else len(rows[0][0].positions)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    positions = np.zeros((planes, len(rows), longest), dtype=np.int64)
    places: list[np.ndarray] = []  # (m, 3) row, column, target
    for number, row in enumerate(rows):
        start = 0
        for document in row:
            end = start + len(document)
            ids[number, start:end] = document.ids
            positions[:, number, start:end] = document.positions
            is_from = np.full(len(document.places), number)
            places.append(np.stack([is_from, document.places + start, document.targets], axis=1))
            start = end
        positions[:, number, start:] = np.arange(longest - start)
    row_of, columns, targets = torch.from_numpy(np.concatenate(places)).T
    images = [image for row in rows for document in row for image in document.images]
    table = torch.from_numpy(positions)
    return ChatBatch(
        ids=torch.from_numpy(ids),
        positions=table[0] if planes == 1 else table,
        rows=row_of.contiguous(),
        columns=columns.contiguous(),
        targets=targets.contiguous(),
        pixels=[image.pixels for image in images],
        grids=tuple(image.grid for image in images),
        questions=[image.question for image in images if image.question is not None],
        sources=sources if any(sources := tuple(row[0].source for row in rows)) else (),
    )
