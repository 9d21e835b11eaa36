"""Chats of LLaVA-OneVision computed segment by segment: a new segment reuses the keys and values of those before it.

B = rows, n = positions of a segment, K = positions before it, D = hidden size, H = key heads, C = head size. A chat is
a chain of segments: constant text, an image, a question, a second question. A text that is not the first segment is
padded on the left to a multiple of 8 tokens, so that a row's numbers depend on that row alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.models.llava.model import Llava, embed_tokens, language_hidden
from genloop.models.showo.model import additive_mask
from genloop.models.showo.prefix import MIN_GEMM_ROWS


@dataclass(frozen=True, eq=False)
class Segment:
    """The computed part of one row's chat that follows `parent`. It refers to its parents only: no reference cycle."""

    parent: "Segment | None"
    keys: Tensor  # (layers, H, n, C)
    values: Tensor  # (layers, H, n, C)
    pads: int  # masked positions at its start
    last: Tensor  # (D,) normalised hidden state of its last position

    @cached_property
    def parents(self) -> "tuple[Segment, ...]":
        """All segments before this one, the first of the chat first."""
        return self.parent.chain if self.parent else ()

    @property
    def chain(self) -> "tuple[Segment, ...]":
        """The parents and this segment. Not cached: a segment that refers to itself is freed late, by the collector."""
        return (*self.parents, self)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Positions of every segment of the chain, pads included: rows of equal lengths can share a batch."""
        return (*(self.parent.lengths if self.parent else ()), self.keys.shape[2])

    @cached_property
    def position(self) -> int:
        """Position of the next token; pads are not counted."""
        return (self.parent.position if self.parent else 0) + self.keys.shape[2] - self.pads

    @property
    def num_bytes(self) -> int:
        """Of its own keys and values."""
        return 2 * self.keys.numel() * self.keys.element_size()


def padded_length(num_tokens: int, parent: Segment | None) -> int:
    """The length that a text is padded to: a multiple of 8, or no padding for the first segment of a chat."""
    if parent is None:
        return num_tokens
    return -(-num_tokens // MIN_GEMM_ROWS) * MIN_GEMM_ROWS


def extend_text(model: Llava, parents: Sequence[Segment | None], texts: Sequence[Sequence[int]]) -> list[Segment]:
    """One text after each parent. All texts have the same padded length, all parents the same `lengths`."""
    length = padded_length(len(texts[0]), parents[0])
    pads = [length - len(ids) for ids in texts]
    ids = torch.tensor([[0] * pad + list(row) for pad, row in zip(pads, texts)], device=model.device)
    return _extend(model, parents, embed_tokens(model, ids), pads, masked=parents[0] is not None)


def extend_image(model: Llava, parents: Sequence[Segment | None], features: Tensor) -> list[Segment]:
    """Image features (B, n, D), one row after each parent. All parents have the same `lengths`."""
    parent = parents[0]
    return _extend(model, parents, features, [0] * len(features), masked=parent is not None and len(parent.chain) > 1)


def next_logits(model: Llava, segments: Sequence[Segment]) -> Tensor:
    """Logits of the token after each segment (B, V), fp32."""
    rows = torch.stack([segment.last for segment in segments])
    return model.lm_head(_enough(rows))[: len(rows)].float()


def continue_greedily(
    model: Llava, segments: Sequence[Segment], *, max_new_tokens: int, num_tokens: int, end: int | None
) -> list[list[int]]:
    """Greedy decoding after each segment: ids below `num_tokens`, up to the id `end`. All have the same `lengths`."""
    rows = len(segments)
    repeated = list(segments) * -(-MIN_GEMM_ROWS // rows)
    cache = _Cache(repeated, grow=True)
    mask = _visible(repeated, [], 0, model.device)
    positions = torch.tensor([[segment.position] for segment in repeated], device=model.device)
    choice = next_logits(model, segments)[:, :num_tokens].argmax(-1)
    written: list[list[int]] = [[] for _ in segments]
    open_rows = set(range(rows))
    for step in range(max_new_tokens):
        for row in sorted(open_rows):
            if int(choice[row]) == end:
                open_rows.discard(row)
            else:
                written[row].append(int(choice[row]))
        if not open_rows or step == max_new_tokens - 1:
            break
        mask = F.pad(mask, (0, 1), value=True)
        embeds = embed_tokens(model, choice.repeat(len(repeated) // rows)[:, None])
        hidden = language_hidden(
            model, embeds, positions=positions + step, mask=additive_mask(mask, embeds.dtype), cache=cache
        )
        choice = model.lm_head(hidden[:, -1])[:rows, :num_tokens].float().argmax(-1)
    return written


def _extend(
    model: Llava, parents: Sequence[Segment | None], embeds: Tensor, pads: Sequence[int], *, masked: bool
) -> list[Segment]:
    """Embeddings (B, n, D) after their parents. `masked`: rows of these lengths can have pads, so a mask is needed.

    Nothing that is decided here for a batch may depend on which rows are in it.
    """
    rows, length = embeds.shape[:2]
    repeats = -(-MIN_GEMM_ROWS // (rows * length))
    fronts, pads = list(parents) * repeats, list(pads) * repeats
    cache = _Cache(fronts)
    starts = torch.tensor([front.position if front else 0 for front in fronts], device=embeds.device)
    steps = torch.arange(length, device=embeds.device) - torch.tensor(pads, device=embeds.device)[:, None]
    mask = additive_mask(_visible(fronts, pads, length, embeds.device), embeds.dtype) if masked else None
    hidden = language_hidden(
        model,
        embeds.repeat(repeats, 1, 1),
        positions=starts[:, None] + steps.clamp(min=0),
        mask=mask,
        cache=cache,
        tail=MIN_GEMM_ROWS,
    )
    return [
        Segment(
            parents[row],
            torch.stack([keys[row] for keys in cache.new_keys]),
            torch.stack([values[row] for values in cache.new_values]),
            pads[row],
            hidden[row, -1].clone(),
        )
        for row in range(rows)
    ]


def _visible(fronts: Sequence[Segment | None], pads: Sequence[int], length: int, device: torch.device) -> Tensor:
    """Attention mask of `length` new positions, (B, 1, length, K + length) bool; for length 0, (B, 1, 1, K)."""
    front = fronts[0].lengths if fronts[0] else ()
    first = [[s.pads for s in f.chain] if f else [] for f in fronts]
    counts = torch.tensor([row + [pad] for row, pad in zip(first, pads or [0] * len(fronts))], device=device)
    columns = [
        torch.arange(size, device=device) >= counts[:, piece, None] for piece, size in enumerate([*front, length])
    ]
    seen = torch.cat(columns, dim=1)[:, None, None]
    if not length:
        return seen
    causal = torch.ones(length, seen.shape[-1], dtype=torch.bool, device=device).tril(sum(front))
    return seen & causal


class _Cache:
    """The cache that the stock attention calls: prepends the chains' keys and values to new ones (B, H, n, C)."""

    def __init__(self, fronts: Sequence[Segment | None], *, grow: bool = False) -> None:
        chains = [front.chain if front else () for front in fronts]
        pieces = list(zip(*chains)) if chains[0] else []
        self.pieces = [part[:1] if len(set(map(id, part))) == 1 else part for part in pieces]
        self.grow = grow
        self.rows = len(fronts)
        self.new_keys: list[Tensor] = []
        self.new_values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        if not self.grow:
            self.new_keys.append(keys)
            self.new_values.append(values)
            return self._front(layer_idx, keys, values)
        if len(self.new_keys) <= layer_idx:
            keys, values = self._front(layer_idx, keys, values)
            self.new_keys.append(keys)
            self.new_values.append(values)
        else:
            self.new_keys[layer_idx] = torch.cat([self.new_keys[layer_idx], keys], dim=2)
            self.new_values[layer_idx] = torch.cat([self.new_values[layer_idx], values], dim=2)
        return self.new_keys[layer_idx], self.new_values[layer_idx]

    def _front(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        front_keys = [self._stack([segment.keys[layer] for segment in piece]) for piece in self.pieces]
        front_values = [self._stack([segment.values[layer] for segment in piece]) for piece in self.pieces]
        return torch.cat([*front_keys, keys], dim=2), torch.cat([*front_values, values], dim=2)

    def _stack(self, parts: list[Tensor]) -> Tensor:
        """One part per row, or one for all rows -> (B, H, n, C)"""
        return torch.stack(parts).expand(self.rows, -1, -1, -1)


def _enough(rows: Tensor) -> Tensor:
    """(B, D) -> the rows repeated to at least 8: products of fewer rows take other kernels, whose last bit differs."""
    return rows.repeat(-(-MIN_GEMM_ROWS // len(rows)), 1) if len(rows) < MIN_GEMM_ROWS else rows
