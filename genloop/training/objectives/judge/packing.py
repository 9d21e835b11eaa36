"""Several branches behind one image in one sequence: the image is read once, and no branch sees another.

Each branch has the positions it would have alone behind the image, and a mask hides the others from it, so its hidden
states are those of a sequence of its own. Rows of similar length go through the model together; pads are on the right.
B = rows, P = tokens in front of the image, T = image positions, n = tokens behind it, D = hidden size, R = reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genloop.models.llava.model import Llava, embed_tokens, language_hidden
from genloop.training.objectives.judge.branches import Branch

_SLACK = 0.1  # how much longer than the shortest row of a pass the longest may be
_HIDDEN = -1e30  # of a mask


@dataclass(frozen=True, eq=False)
class Row:
    """An image, by its place among the features, and what is asked about it."""

    image: int
    branches: Sequence[Branch]

    @property
    def front(self) -> tuple[int, ...]:
        """The ids in front of the image, the same for all branches."""
        return self.branches[0].front

    @property
    def length(self) -> int:
        """Tokens behind the image."""
        return sum(len(branch.ids) for branch in self.branches)


def hidden_at_reads(
    model: Llava, features: Tensor, rows: Sequence[Row], *, agree: Callable[[int], int] | None = None
) -> Tensor:
    """Features of distinct images (I, T, D) -> hidden states at every read (R, D), row by row, branch by branch.

    `agree` turns a number of passes into that of all ranks; those too many here count for nothing.
    """
    parts, order = [], []
    starts = np.cumsum([0] + [sum(len(branch.reads) for branch in row.branches) for row in rows])
    runs = list(passes(rows, features.shape[1]))
    wanted = len(runs) if agree is None else agree(len(runs))
    for members in runs:
        part = [rows[member] for member in members]
        parts.append(_run(model, features, part))
        order += [read for member in members for read in range(starts[member], starts[member + 1])]
    place = torch.empty(len(order), dtype=torch.int64)
    place[torch.tensor(order)] = torch.arange(len(order))
    hidden = torch.cat(parts)[place.to(features.device)]
    for _ in range(len(runs), wanted):
        hidden = hidden + 0 * _run(model, features, rows[:1]).sum()
    return hidden


def passes(rows: Sequence[Row], num_image_positions: int) -> Iterator[list[int]]:
    """Row numbers that share a forward pass: with equal fronts and similar lengths."""
    sizes = [len(row.front) + num_image_positions + row.length for row in rows]
    fronts = {front: number for number, front in enumerate(dict.fromkeys(row.front for row in rows))}
    members: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (fronts[rows[number].front], sizes[number])):
        first = members[0] if members else number
        if rows[number].front != rows[first].front or sizes[number] > (1 + _SLACK) * sizes[first]:
            yield members
            members = []
        members.append(number)
    if members:
        yield members


def _run(model: Llava, features: Tensor, rows: Sequence[Row]) -> Tensor:
    device, front = features.device, rows[0].front
    ids, branch_of, offset = _packed(rows)
    before = len(front) + features.shape[1]
    seen = features[torch.tensor([row.image for row in rows], device=device)]  # (B, T, D)
    pieces = [seen, embed_tokens(model, torch.from_numpy(ids).to(device)).to(seen.dtype)]
    if front:
        head = embed_tokens(model, torch.tensor(front, device=device)).to(seen.dtype)
        pieces.insert(0, head.expand(len(rows), *head.shape))
    embeds = torch.cat(pieces, dim=1)
    if all(len(row.branches) == 1 for row in rows):
        hidden = language_hidden(model, embeds)
    else:
        positions = np.concatenate([np.tile(np.arange(before), (len(rows), 1)), before + offset], axis=1)
        mask = _mask(torch.from_numpy(branch_of).to(device), before, embeds.dtype)
        hidden = language_hidden(model, embeds, positions=torch.from_numpy(positions).to(device), mask=mask)
    row_of, place = _places(rows)
    return hidden[torch.tensor(row_of, device=device), torch.tensor(place, device=device) + before]


def _packed(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> ids, number of the branch (-1 for a pad) and position inside of it, each (B, n)."""
    width = max(row.length for row in rows)
    ids, offset = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(2))
    branch_of = np.full((len(rows), width), -1, dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for index, branch in enumerate(row.branches):
            end = start + len(branch.ids)
            ids[number, start:end] = branch.ids
            branch_of[number, start:end] = index
            offset[number, start:end] = np.arange(end - start)
            start = end
    return ids, branch_of, offset


def _places(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """The row and the place among the tokens behind the image of every read."""
    row_of: list[int] = []
    place: list[int] = []
    for number, row in enumerate(rows):
        start = 0
        for branch in row.branches:
            row_of += [number] * len(branch.reads)
            place += (branch.reads + start).tolist()
            start += len(branch.ids)
    return row_of, place


def _mask(branch_of: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """branch_of (B, n) -> additive (B, 1, L, L), L = before + n: causal, and blind to the other branches."""
    length = before + branch_of.shape[1]
    allow = torch.ones(length, length, dtype=torch.bool, device=branch_of.device).tril()
    allow = allow.expand(len(branch_of), length, length).clone()
    allow[:, before:, before:] &= branch_of[:, :, None] == branch_of[:, None, :]
    return torch.zeros(allow.shape, dtype=dtype, device=allow.device).masked_fill(~allow, _HIDDEN)[:, None]
