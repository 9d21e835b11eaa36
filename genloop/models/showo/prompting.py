"""Show-o's sequence layouts and attention masks.

B = rows, n = image tokens, M = `max_seq_length`, L = sequence length. The text part of a t2i row has M + 1 tokens,
padded on the left, so that it ends where the image begins; other rows have no pads.
    t2i   [PAD]* <t2i> bos text eos <soi> codes <eoi>
    mmu   <mmu> <soi> codes <eoi> bos question
    correction  <mmu> <soi> codes <eoi> reason eos <t2i> bos text eos <soi> codes <eoi>
A correction row holds an image, what is wrong with it, the prompt, and the image that is right. Guo et al.
(2025) describe such a model and released none: the layout is ours.
Codes are given as 0..K-1; K stands for the mask token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genloop.models.common.text import TextTokenizer, with_bos
from genloop.models.showo.config import ShowOConfig

IGNORE = -100


@dataclass(frozen=True)
class Layout:
    """Builds the id sequences of one model and its text tokenizer."""

    config: ShowOConfig
    text: TextTokenizer

    def t2i_text(self, prompt: str) -> list[int]:
        """The unpadded text part of a t2i row, at most M + 1 ids; the unconditional one is that of an empty prompt."""
        ids = [self.config.t2i_id, *with_bos(self.text, prompt), self.text.eos_id]
        if len(ids) <= self.config.text_length:
            return ids
        return [*ids[: self.config.max_seq_length], self.text.eos_id]

    def t2i(self, prompts: Sequence[str], codes: Tensor) -> Tensor:
        """One prompt per row of codes (B, n) -> ids (B, M + n + 3)."""
        width = self.config.text_length
        texts = [self.t2i_text(prompt) for prompt in prompts]
        padded = torch.tensor([[self.config.pad_id] * (width - len(ids)) + ids for ids in texts], dtype=torch.int64)
        return torch.cat([padded.to(codes.device), self._image(codes)], dim=1)

    def t2i_training(
        self, prompts: Sequence[str], codes: Tensor, targets: Tensor, dropped: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """Masked codes (B, n) and targets (B, n) (a code, or -100 where it counts for nothing) -> ids, labels (B, L).

        Rows that are `dropped` lose their text: that trains the unconditional branch. Text, soi and eoi ids are their
        own labels; only pads are ignored. The loss of the reference starts at the soi position and does not shift.
        """
        ids = self.t2i(["" if drop else prompt for prompt, drop in zip(prompts, dropped)], codes)
        labels = torch.where(ids == self.config.pad_id, IGNORE, ids)
        image = torch.where(targets == IGNORE, IGNORE, targets + self.config.code_offset)
        labels[:, self.config.text_length + 1 : -1] = image
        return ids, labels

    def mmu_image(self, codes: Tensor) -> Tensor:
        """Codes (B, n) -> the image part <mmu> <soi> codes <eoi> of an mmu row, (B, n + 3)."""
        task = torch.full((len(codes), 1), self.config.mmu_id, dtype=torch.int64, device=codes.device)
        return torch.cat([task, self._image(codes)], dim=1)

    def correction_text(self, codes: Sequence[int], reason: str, prompt: str) -> list[int]:
        """What stands in front of the new image of a correction row; its first n + 3 ids are the image to correct."""
        config = self.config
        image = [config.mmu_id, config.soi_id, *(code + config.code_offset for code in codes), config.eoi_id]
        words = [*with_bos(self.text, reason)[: config.max_seq_length - 1], self.text.eos_id]
        return [*image, *words, *self.t2i_text(prompt)]

    def mmu_question(self, question: str) -> list[int]:
        """The text part of a question about an image: bos and the turn that the public model was tuned on."""
        return [self.text.bos_id, *self.text.encode(f"USER: \n{question} ASSISTANT:")]

    def _image(self, codes: Tensor) -> Tensor:
        ids = codes + self.config.code_offset
        return torch.cat(
            [torch.full_like(ids[:, :1], self.config.soi_id), ids, torch.full_like(ids[:, :1], self.config.eoi_id)],
            dim=1,
        )


def num_shared_pads(ids: Tensor, config: ShowOConfig) -> int:
    """How many columns in front are pads in all rows (B, L): positions are relative, so rows may go without them."""
    return int((ids != config.pad_id).any(dim=0).int().argmax())


def omni_mask(ids: Tensor, config: ShowOConfig, *, see_pads: bool = False) -> Tensor:
    """ids (B, L) of t2i rows -> (B, 1, L, L), True where a row may look at a column.

    Text is causal; soi, codes and eoi see everything. Pads are seen by pads alone unless `see_pads`.
    """
    length = ids.shape[1]
    at = torch.arange(length, device=ids.device)
    causal = at[None, :] <= at[:, None]
    is_image = (ids == config.soi_id).cumsum(1) > 0
    allow = causal[None] | is_image[:, :, None]
    if not see_pads:
        pad = ids == config.pad_id
        allow &= pad[:, :, None] | ~pad[:, None, :]
    return allow[:, None]


def prefix_mask(prefix: Tensor) -> Tensor:
    """prefix (B, L) bool -> (B, 1, L, L): causal, and every row sees the columns of the prefix.

    For the w_clip_vit models the prefix is the 576 features that follow the task token, 28 system tokens and soi.
    """
    at = torch.arange(prefix.shape[1], device=prefix.device)
    return ((at[None, :] <= at[:, None])[None] | prefix[:, None, :])[:, None]
