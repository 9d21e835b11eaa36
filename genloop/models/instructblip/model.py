"""What InstructBLIP computes: features of images, and hidden states where its language model has a decoder (Flan-T5).

I = images, Q = query tokens, q = tokens of a question, D = hidden size of the language model; B = rows, L = tokens of a
row, of which the first `sources` are the encoder's and the others the decoder's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def query_features(model: Any, pixels: Sequence[Tensor], questions: Sequence[Tensor]) -> Tensor:
    """Pixels (3, H, W) of I images and a question (q,) for each -> features (I * Q, D). Differentiable."""
    ids = pad_sequence(list(questions), batch_first=True)
    mask = pad_sequence([torch.ones_like(question) for question in questions], batch_first=True)
    found = model.get_image_features(torch.stack(list(pixels)), ids, mask, return_dict=True)
    return found.pooler_output.flatten(0, 1)


def decoder_hidden(language: Any, embeds: Tensor, sources: Sequence[int]) -> Tensor:
    """Embeddings (B, L, D) -> hidden states (B, L, D), those of the decoder's tokens; the encoder's places hold zeros.

    language: a T5ForConditionalGeneration. Differentiable.
    """
    longest, device = embeds.shape[1], embeds.device
    starts = torch.tensor(sources, device=device)[:, None]
    seen = (torch.arange(max(sources), device=device) < starts).long()  # (B, E)
    encoded = language.encoder(inputs_embeds=embeds[:, : max(sources)], attention_mask=seen).last_hidden_state
    columns = starts + torch.arange(longest - min(sources), device=device)  # (B, T) of the decoder's tokens
    is_inside = columns < longest
    columns = columns.clamp(max=longest - 1)[..., None].expand(-1, -1, embeds.shape[2])
    found = language.decoder(
        inputs_embeds=embeds.gather(1, columns),
        encoder_hidden_states=encoded,
        encoder_attention_mask=seen,
        use_cache=False,
    ).last_hidden_state
    if language.config.scale_decoder_outputs:
        found = found * language.config.d_model**-0.5
    # what was clamped would be added to the last place
    return torch.zeros_like(found[:, :1]).expand(-1, longest, -1).scatter_add(1, columns, found * is_inside[..., None])
