"""Several branches behind one image packed into one sequence, so that the image is encoded once for all of them.

Every branch keeps the positions it would have alone behind the image, and the attention mask hides the other branches,
so its hidden states are those of a sequence of its own. Rows of similar length share a forward pass, padded on the
right. `pack` works on the CPU (in loader processes); `supervised_hidden` runs the model.
B = rows of a pass, P = prefix tokens, T = image positions, n = tokens behind the image, D = hidden size,
R = supervised positions of all rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genloop.models.llava.model import Llava, embed_tokens, language_hidden
from genloop.training.loading import mapped
from genloop.training.objectives.judge.branches import Branch

_MAX_PADDING = 0.1  # how much longer than the shortest row of a pass the longest may be
_MASKED = -1e30  # added to attention scores


@dataclass(frozen=True, eq=False)
class Row:
    """One image, by its place among the features, and the branches behind it; all have the same prefix."""

    image: int
    branches: Sequence[Branch]

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids before the image."""
        return self.branches[0].prefix

    @property
    def length(self) -> int:
        """Tokens behind the image."""
        return sum(len(branch.ids) for branch in self.branches)


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Rows that go through the language model together; (r,) supervised positions among them."""

    images: Tensor  # (B,) places among the features
    prefix: Tensor  # (P,) ids before the image, the same for all rows
    ids: Tensor  # (B, n) ids behind it, 0 for padding
    branch_of: Tensor | None  # (B, n) number of the branch, -1 for padding; None when every row has one branch
    offsets: Tensor | None  # (B, n) position inside the branch
    rows: Tensor  # (r,) row of each supervised position
    columns: Tensor  # (r,) its place among the tokens behind the image


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The forward passes of some rows, and where the states they give belong in the order of the rows."""

    passes: list[ForwardPass]
    order: Tensor  # (R,) place of each supervised position among the outputs of all passes

    def to(self, device: torch.device) -> "PackedRows":
        """The same on a device."""
        return mapped(self, lambda tensor: tensor.to(device))


def pack(rows: Sequence[Row], num_image_positions: int) -> PackedRows:
    """Rows -> forward passes with little padding; CPU tensors."""
    starts = np.cumsum([0] + [sum(len(branch.supervised_positions) for branch in row.branches) for row in rows])
    groups = list(rows_of_passes(rows, num_image_positions))
    computed = [position for group in groups for row in group for position in range(starts[row], starts[row + 1])]
    order = torch.empty(len(computed), dtype=torch.int64)
    order[torch.tensor(computed)] = torch.arange(len(computed))
    return PackedRows([_forward_pass([rows[row] for row in group]) for group in groups], order)


def rows_of_passes(rows: Sequence[Row], num_image_positions: int) -> Iterator[list[int]]:
    """Row numbers that share a forward pass: with equal prefixes and similar lengths."""
    sizes = [len(row.prefix) + num_image_positions + row.length for row in rows]
    prefixes = {prefix: number for number, prefix in enumerate(dict.fromkeys(row.prefix for row in rows))}
    members: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (prefixes[rows[number].prefix], sizes[number])):
        first = members[0] if members else number
        is_longer = sizes[number] > (1 + _MAX_PADDING) * sizes[first]
        if rows[number].prefix != rows[first].prefix or is_longer:
            yield members
            members = []
        members.append(number)
    if members:
        yield members


def supervised_hidden(
    model: Llava,
    features: Tensor,
    packed: PackedRows,
    *,
    max_passes_over_ranks: Callable[[int], int] | None = None,
) -> Tensor:
    """Features of distinct images (I, T, D) -> hidden states at the supervised positions (R, D), in the rows' order.

    Where layers are sharded every rank must call them equally often: `max_passes_over_ranks` turns the number of passes
    here into the largest of all ranks, and missing passes are run on one row with a weight of zero.
    """
    wanted = len(packed.passes) if max_passes_over_ranks is None else max_passes_over_ranks(len(packed.passes))
    hidden = torch.cat([_run(model, features, one) for one in packed.passes])[packed.order]
    for _ in range(len(packed.passes), wanted):
        hidden = hidden + 0 * _run(model, features, _first_row(packed.passes[0])).sum()
    return hidden


def _run(model: Llava, features: Tensor, one: ForwardPass) -> Tensor:
    """One pass through the language model -> its supervised states (r, D)."""
    before = len(one.prefix) + features.shape[1]
    images = features[one.images]  # (B, T, D)
    parts = [images, embed_tokens(model, one.ids).to(images.dtype)]
    if len(one.prefix):
        prefix = embed_tokens(model, one.prefix).to(images.dtype)
        parts.insert(0, prefix.expand(len(images), *prefix.shape))
    embeds = torch.cat(parts, dim=1)
    if one.branch_of is None or one.offsets is None:
        hidden = language_hidden(model, embeds)
    else:
        shared = torch.arange(before, device=embeds.device).expand(len(embeds), before)
        positions = torch.cat([shared, before + one.offsets], dim=1)
        mask = _attention_mask(one.branch_of, before, embeds.dtype)
        hidden = language_hidden(model, embeds, positions=positions, mask=mask)
    return hidden[one.rows, one.columns + before]


def _forward_pass(rows: Sequence[Row]) -> ForwardPass:
    """Pad the rows of one pass to the longest."""
    width = max(row.length for row in rows)
    ids, offsets = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(2))
    branch_of = np.full((len(rows), width), -1, dtype=np.int64)
    places: list[tuple[int, int]] = []  # (row, column) of each supervised position
    for number, row in enumerate(rows):
        start = 0
        for index, branch in enumerate(row.branches):
            end = start + len(branch.ids)
            ids[number, start:end] = branch.ids
            branch_of[number, start:end] = index
            offsets[number, start:end] = np.arange(end - start)
            places += [(number, start + position) for position in branch.supervised_positions.tolist()]
            start = end
    is_packed = any(len(row.branches) > 1 for row in rows)
    row_of, column = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
    return ForwardPass(
        images=torch.tensor([row.image for row in rows]),
        prefix=torch.tensor(rows[0].prefix, dtype=torch.int64),
        ids=torch.from_numpy(ids),
        branch_of=torch.from_numpy(branch_of) if is_packed else None,
        offsets=torch.from_numpy(offsets) if is_packed else None,
        rows=row_of.contiguous(),
        columns=column.contiguous(),
    )


def _first_row(one: ForwardPass) -> ForwardPass:
    """The first row alone, with a supervised position of its own."""
    branch_of, offsets = (None if table is None else table[:1] for table in (one.branch_of, one.offsets))
    place = torch.zeros(1, dtype=torch.int64, device=one.ids.device)
    return replace(
        one, images=one.images[:1], ids=one.ids[:1], branch_of=branch_of, offsets=offsets, rows=place, columns=place
    )


def _attention_mask(branch_of: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """branch_of (B, n) -> additive (B, 1, L, L), L = before + n: causal, without attention between branches."""
    length = before + branch_of.shape[1]
    allow = torch.ones(length, length, dtype=torch.bool, device=branch_of.device).tril()
    allow = allow.expand(len(branch_of), length, length).clone()
    allow[:, before:, before:] &= branch_of[:, :, None] == branch_of[:, None, :]
    return torch.zeros(allow.shape, dtype=dtype, device=allow.device).masked_fill(~allow, _MASKED)[:, None]
