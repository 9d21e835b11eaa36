"""Masked-token training of Show-o on captioned codes (Xie et al. 2024): batches and loss.

A step's batch is a function of (seed, step): the rows from a shuffle of the whole data set in each epoch, which tokens
are masked from u ~ U(0, 1) with ratio cos(pi u / 2), which captions are dropped for the unconditional branch.
B = rows of all ranks, n = image tokens, L = sequence length, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.data.arrays import CAPTION, CODES, read_caption, read_codes
from genloop.data.order import Order
from genloop.data.shards import Shards
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import IGNORE, Layout, num_shared_pads, omni_mask
from genloop.training.task import Loss, Objective, Plan


@dataclass(frozen=True, slots=True)
class MaskedCaption:
    """One row of a step: the sample, which tokens are hidden (n,) bool, whether its caption is dropped."""

    row: int
    masked: np.ndarray
    is_dropped: bool


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Sequences and what is to be predicted at their positions, both (B, L); IGNORE where nothing is."""

    ids: Tensor
    labels: Tensor


class MaskedTokens(Objective[MaskedCaption, TokenRows]):
    """Rows of shards with captions and codes; the soi and eoi positions count too, as in the reference, when `ends`."""

    model: ShowO

    def __init__(
        self,
        model: ShowO,
        layout: Layout,
        shards: Shards,
        *,
        seed: int,
        batch_size: int,
        drop_captions: float,
        ends: bool,
    ) -> None:
        self.model, self.layout, self.shards = model, layout, shards
        self.seed, self.batch_size, self.drop_captions, self.ends = seed, batch_size, drop_captions, ends
        self._num_tokens = layout.config.num_vq_tokens
        self._order = Order(shards.sizes, seed)
        self._num_codes = model.config.codebook_size

    def plan(self, step: int) -> Plan[MaskedCaption]:
        """Rows, masks and dropped captions of a step; the weight is the number of labels."""
        rng = np.random.default_rng([self.seed, 1, step])
        dropped = rng.random(self.batch_size) < self.drop_captions
        masked = draw_masks(rng, self.batch_size, self._num_tokens)
        rows = self._order.rows(step, self.batch_size)
        items = [MaskedCaption(*item) for item in zip(rows, masked, dropped.tolist(), strict=True)]
        return Plan(items, float(masked.sum() + 2 * self.batch_size * self.ends))

    def load(self, items: Sequence[MaskedCaption], plan: Plan[MaskedCaption]) -> TokenRows:
        """Read codes and captions and lay them out, without the pads that all rows share."""
        config = self.layout.config
        samples = [self.shards.read(item.row, (CODES, CAPTION)) for item in items]
        codes = torch.from_numpy(np.stack([read_codes(s, self._num_tokens, self._num_codes) for s in samples]))
        masked = torch.from_numpy(np.stack([item.masked for item in items]))
        captions = [read_caption(sample) for sample in samples]
        ids, labels = self.layout.t2i_training(
            captions,
            torch.where(masked, config.codebook_size, codes),
            torch.where(masked, codes, IGNORE),
            [item.is_dropped for item in items],
        )
        shared = num_shared_pads(ids, config)
        start = config.text_length - shared
        ids, labels = ids[:, shared:].contiguous(), labels[:, shared:].clone()
        labels[:, :start] = IGNORE
        if not self.ends:
            labels[:, [start, -1]] = IGNORE
        return TokenRows(ids, labels)

    def loss(self, batch: TokenRows) -> Loss:
        """Sum of -log p over the labels, weight = their number; fp32 softmax over the whole vocabulary."""
        wanted = batch.labels != IGNORE
        hidden = self.model.hidden(batch.ids, omni_mask(batch.ids, self.model.config))
        logits = self.model.showo.lm_head(hidden[wanted])  # (labels, V)
        total = F.cross_entropy(logits.float(), batch.labels[wanted], reduction="sum")
        return Loss(total, float(wanted.sum()))


def draw_masks(rng: np.random.Generator, rows: int, num_tokens: int) -> np.ndarray:
    """(rows, n) bool: at least one token of each row, on average a share of 2 / pi."""
    ratio = np.cos(rng.random((rows, 1)) * np.pi / 2)
    counts = np.maximum(1, np.round(num_tokens * ratio))
    rank = rng.random((rows, num_tokens)).argsort(axis=1).argsort(axis=1)
    return rank < counts
