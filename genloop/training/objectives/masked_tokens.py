"""Masked-token training of Show-o on captioned codes (Xie et al. 2024): batches and loss.

A step's batch is a function of (seed, step): the rows from a shuffle of the whole data set in each epoch, which tokens
are masked from u ~ U(0, 1) with ratio cos(pi u / 2), which captions are dropped for the unconditional branch.
B = rows of all ranks, n = image tokens, L = sequence length, V = vocabulary.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.data.shards import Sample, Shards
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import IGNORE, Layout, omni_mask
from genloop.training.task import Loss

CODES, CAPTION = "codes.npy", "txt"


@dataclass(frozen=True, slots=True)
class CaptionedCodes:
    """The batch of a step: captions, codes (B, n), mask (B, n) True where a token is hidden, dropped captions."""

    captions: Sequence[str]
    codes: Tensor
    masked: Tensor
    dropped: Sequence[bool]


@dataclass
class Order:
    """Which sample comes when: epoch after epoch, each one shuffle of the whole set keyed by (seed, epoch)."""

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The samples of step 1, 2, ...; a batch may span two epochs."""
        first = (step - 1) * batch_size
        return [self._at(position) for position in range(first, first + batch_size)]

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, self.num_samples)
        if epoch != self._epoch:
            self._epoch, self._shuffled = (
                epoch,
                np.random.default_rng([self.seed, 0, epoch]).permutation(self.num_samples),
            )
        return int(self._shuffled[place])


class CaptionedCodeBatches:
    """`batches(step)` reads the captions and codes of a step from shards and draws its masks."""

    def __init__(self, shards: Shards, *, seed: int, batch_size: int, num_tokens: int, drop_captions: float) -> None:
        self.shards, self.seed, self.batch_size = shards, seed, batch_size
        self.num_tokens, self.drop_captions = num_tokens, drop_captions
        self._order = Order(len(shards), seed)

    def __call__(self, step: int) -> CaptionedCodes:
        samples = [self.shards[row] for row in self._order.rows(step, self.batch_size)]
        codes = torch.stack([read_codes(sample, self.num_tokens) for sample in samples])
        rng = np.random.default_rng([self.seed, 1, step])
        dropped = rng.random(self.batch_size) < self.drop_captions
        captions = [sample.fields[CAPTION].decode() for sample in samples]
        return CaptionedCodes(captions, codes, draw_masks(rng, self.batch_size, self.num_tokens), dropped.tolist())


def read_codes(sample: Sample, num_tokens: int) -> Tensor:
    """The codes of a sample, (n,) int64; ValueError names a sample without codes or with another number of them."""
    if CODES not in sample.fields or CAPTION not in sample.fields:
        raise ValueError(f"sample {sample.key} has {', '.join(sample.fields)}; training needs {CODES} and {CAPTION}")
    codes = np.load(io.BytesIO(sample.fields[CODES]), allow_pickle=False)
    if codes.shape != (num_tokens,):
        raise ValueError(f"sample {sample.key} has codes of shape {list(codes.shape)}, the model takes [{num_tokens}]")
    return torch.from_numpy(codes.astype(np.int64))


def draw_masks(rng: np.random.Generator, rows: int, num_tokens: int) -> Tensor:
    """(rows, n) bool: at least one token of each row, on average a share of 2 / pi."""
    ratio = np.cos(rng.random((rows, 1)) * np.pi / 2)
    counts = np.maximum(1, np.round(num_tokens * ratio))
    rank = rng.random((rows, num_tokens)).argsort(axis=1).argsort(axis=1)
    return torch.from_numpy(rank < counts)


def masked_token_loss(model: ShowO, layout: Layout, batch: CaptionedCodes, rows: Sequence[int], *, ends: bool) -> Loss:
    """Sum of -log p over the masked tokens of `rows`, weight = their number; fp32 softmax over the whole vocabulary.

    As in the reference the soi and eoi positions count too, each predicting itself, when `ends`. Pads that all rows
    share are cut off: positions are relative, so no logit changes.
    """
    codes, masked = batch.codes[rows].to(model.device), batch.masked[rows].to(model.device)
    hidden_codes = torch.where(masked, model.config.codebook_size, codes)
    targets = torch.where(masked, codes, IGNORE)
    captions, dropped = [batch.captions[row] for row in rows], [batch.dropped[row] for row in rows]
    ids, labels = layout.t2i_training(captions, hidden_codes, targets, dropped)
    shared = int((ids != model.config.pad_id).any(dim=0).int().argmax())
    ids, labels = ids[:, shared:], labels[:, shared:].clone()
    start = model.config.text_length - shared
    labels[:, :start] = IGNORE
    if not ends:
        labels[:, [start, -1]] = IGNORE
    wanted = labels != IGNORE
    logits = model.showo.lm_head(model.hidden(ids, omni_mask(ids, model.config))[wanted])  # (labels, V)
    total = F.cross_entropy(logits.float(), labels[wanted], reduction="sum")
    return Loss(total, float(wanted.sum()))


def masked_token_weight(batch: CaptionedCodes, *, ends: bool) -> float:
    """The weight that the losses of all rows of a batch add up to."""
    return float(batch.masked.sum()) + 2 * len(batch.captions) * ends
