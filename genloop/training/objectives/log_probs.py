"""Log-probabilities of image codes under a Show-o, with gradient: what DPO and GRPO compare between models.

B = rows, n = image tokens, K = codebook size, L = sequence length, D = hidden size. A token's probability is a softmax
over the K codes at its own position, in float32. Where it is to be guessed, the input holds the mask code K.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import IGNORE, Layout, num_shared_pads, omni_mask


def code_log_probs(
    model: ShowO,
    layout: Layout,
    captions: Sequence[str],
    inputs: Tensor,
    targets: Tensor,
    *,
    dropped: Sequence[bool],
    guidance_scale: float = 0.0,
    wanted: Tensor | None = None,
) -> Tensor:
    """Captions and input codes (B, n) in 0..K -> log p of the targets (B, n), float32; one forward pass.

    Rows that are `dropped` lose their caption. With guidance the logits are (1 + g) conditional - g unconditional, and
    the pass has 2 B rows. Where `wanted` (B, n) is given, other positions are not computed and are 0.
    """
    texts = ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
    if guidance_scale > 0:
        texts, inputs = [*texts, *[""] * len(texts)], inputs.repeat(2, 1)
    ids = layout.t2i(texts, inputs)
    ids = ids[:, num_shared_pads(ids, layout.config) :]
    return id_log_probs(model, ids, targets, guidance_scale=guidance_scale, wanted=wanted)


def id_log_probs(
    model: ShowO, ids: Tensor, targets: Tensor, *, guidance_scale: float = 0.0, wanted: Tensor | None = None
) -> Tensor:
    """`code_log_probs` of sequences laid out before: ids (B, L), with guidance (2 B, L), unconditional rows last."""
    if wanted is None:
        wanted = torch.ones_like(targets, dtype=torch.bool)
    hidden = model.hidden(ids, omni_mask(ids, model.config))[:, -targets.shape[1] - 1 : -1]  # (B or 2 B, n, D)
    if guidance_scale > 0:
        conditional, unconditional = (model.code_logits(half[wanted]).float() for half in hidden.chunk(2))
        logits = (1 + guidance_scale) * conditional - guidance_scale * unconditional
    else:
        logits = model.code_logits(hidden[wanted]).float()  # (positions, K)
    return _log_softmax_at(logits, targets, wanted)


def label_log_probs(model: ShowO, ids: Tensor, labels: Tensor) -> Tensor:
    """ids and labels (B, L) -> log p of each label, (B, L) float32 and 0 where the label is IGNORE.

    The published DPO's: a softmax over the whole vocabulary, and whatever has a label counts, soi and eoi too.
    """
    wanted = labels != IGNORE
    logits = model.showo.lm_head(model.hidden(ids, omni_mask(ids, model.config))[wanted]).float()
    return _log_softmax_at(logits, labels, wanted)


def _log_softmax_at(logits: Tensor, targets: Tensor, wanted: Tensor) -> Tensor:
    """logits (positions, V) of the wanted positions -> log p of their targets at (B, n), 0 elsewhere."""
    found = logits.log_softmax(1).gather(1, targets[wanted][:, None])[:, 0]
    return torch.zeros(targets.shape, device=found.device).masked_scatter(wanted, found)
