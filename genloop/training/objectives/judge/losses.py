"""The terms of a judge's loss (Guo et al. 2025; LLaVA-OneVision, Li et al. 2024), as sums over a micro-batch.

    outcome, potential, clarity, scenes   soft cross-entropy of the answer's first token over the whole vocabulary:
                                          -(y log p(yes) + (1 - y) log p(no))
    pairs     log(1 + exp(-(m_better - m_worse))), m = logit(yes) - logit(no), times the difference of the labels
    cells     which shape and which colour a patch shows: softmax over the inner products of its projected feature with
              the word embeddings of "background" and the names, so the image is tied to the words from the start
    names     at every shape or colour word of a prompt: yes against no for "it is in the image"
    reason, words     cross-entropy of the tokens of a reason, of a conversation's answers
K = labelled positions, V = vocabulary, k = images with cells, T = patches, D = hidden size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.training.objectives.conversations.encoding import word_losses
from genloop.training.objectives.judge.batches import IGNORE, Cells, Pairs, Supervised
from genloop.training.objectives.judge.branches import NAME, REASON, WORD


def yes_no_margin(logits: Tensor, yes: int, no: int) -> Tensor:
    """(R, V) -> logit(yes) - logit(no) (R,)."""
    return logits[:, yes] - logits[:, no]


def position_losses(logits: Tensor, supervised: Supervised, yes: int, no: int) -> dict[str, Tensor]:
    """Float32 logits (K, V) -> the sum of each term that is made of supervised positions."""
    log_p = logits.log_softmax(-1)
    label, kinds = supervised.labels, supervised.kinds
    answered = -(label * log_p[:, yes] + (1 - label) * log_p[:, no])
    margin = yes_no_margin(logits, yes, no)
    present = F.binary_cross_entropy_with_logits(margin, label, reduction="none")
    written = word_losses(log_p, supervised.targets)
    loss = torch.where((kinds == REASON) | (kinds == WORD), written, torch.where(kinds == NAME, present, answered))
    return {term: loss[members].sum() for term, members in supervised.terms.items()}


def pair_loss(margin: Tensor, pairs: Pairs) -> Tensor:
    """Margins (K,) -> the sum of the ranking loss."""
    return (F.softplus(margin[pairs.worse] - margin[pairs.better]) * pairs.gaps).sum()


def cell_loss(features: Tensor, cells: Cells, words: Sequence[Tensor]) -> Tensor:
    """Image features (I, T + 1, D), words (classes, D) of each plane -> the sum of cross-entropies over all planes."""
    patches = features[cells.images, :-1].float()
    total = patches.new_zeros(())
    for plane, embeddings in enumerate(words):
        logits = patches @ embeddings.float().T
        target = cells.classes[..., plane]
        total = total + F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=IGNORE)
    return total
