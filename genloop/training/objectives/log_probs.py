"""Log-probabilities of image codes under a Show-o, with gradient: what DPO and GRPO compare between models.

B = rows, n = image tokens, K = codebook size, V = vocabulary, L = sequence length, S = spots. A token's probability is
a softmax over the K codes at its own position, in float32. Where it is to be guessed, the input holds the mask code K.
A spot is a place among the n + 2 last positions (soi, codes, eoi) of all rows: row * (n + 2) + place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout, num_shared_pads, omni_mask


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
    ids = lay_out_rows(layout, texts, inputs, guidance_scale=guidance_scale)
    rows, columns = (torch.ones_like(targets) if wanted is None else wanted).nonzero(as_tuple=True)
    spots = rows * (targets.shape[1] + 2) + columns + 1
    found = code_log_softmax(model, ids, spots, guidance_scale=guidance_scale)
    log_probs = found.gather(1, targets[rows, columns][:, None])[:, 0]
    return torch.zeros(targets.shape, device=found.device).index_put((rows, columns), log_probs)


def lay_out_rows(layout: Layout, texts: Sequence[str], inputs: Tensor, *, guidance_scale: float) -> Tensor:
    """Texts and input codes (B, n) -> ids (B, L); with guidance (2 B, L), the unconditional rows last.

    Columns that are pads in all rows are left out.
    """
    if guidance_scale > 0:
        texts, inputs = [*texts, *[""] * len(texts)], inputs.repeat(2, 1)
    ids = layout.t2i(texts, inputs)
    return ids[:, num_shared_pads(ids, layout.config) :]


def code_log_softmax(model: ShowO, ids: Tensor, spots: Tensor, *, guidance_scale: float = 0.0) -> Tensor:
    """ids (B, L) or with guidance (2 B, L) -> log p of every code at the spots (S, K), float32."""
    hidden = _image_part(model, ids)
    if guidance_scale > 0:
        conditional, unconditional = (model.code_logits(half.flatten(0, 1)[spots]).float() for half in hidden.chunk(2))
        return ((1 + guidance_scale) * conditional - guidance_scale * unconditional).log_softmax(1)
    return model.code_logits(hidden.flatten(0, 1)[spots]).float().log_softmax(1)


def vocabulary_log_softmax(model: ShowO, ids: Tensor, spots: Tensor) -> Tensor:
    """ids (B, L) -> log p of every id of the vocabulary at the spots (S, V), float32, as the published DPO's."""
    return model.showo.lm_head(_image_part(model, ids).flatten(0, 1)[spots]).float().log_softmax(1)


def _image_part(model: ShowO, ids: Tensor) -> Tensor:
    """Normalised hidden states of soi, codes and eoi, (B, n + 2, D)."""
    return model.hidden(ids, omni_mask(ids, model.config))[:, -model.config.num_vq_tokens - 2 :]
