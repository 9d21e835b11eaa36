"""Run Show-o's text part once and its image part many times: exact, because text never looks at the image.

B = rows, P = prefix tokens, Q = new tokens, D = hidden size, H = heads, C = head size. The keys and values of a prefix
are kept; image rows see all of them and each other, so they need no mask. Pads, which nothing looks at, are left out;
positions stay those of the padded sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genloop.models.showo.config import ShowOConfig
from genloop.models.showo.model import ShowO, additive_mask
from genloop.models.showo.prompting import prefix_mask

MIN_GEMM_ROWS = 8  # with fewer, matrix products take other kernels, whose last bit differs


@dataclass(frozen=True, eq=False)
class Prefix:
    """What image rows need to know about the tokens in front of them."""

    keys: Tensor  # (layers, H, P, C)
    values: Tensor  # (layers, H, P, C)
    position: int  # of the token that follows

    def __len__(self) -> int:
        return self.keys.shape[2]


class Cache(Protocol):
    """What the stock attention calls with new keys and values (B, H, Q, C); it attends to what comes back."""

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]: ...


class _Recorder:
    """Keeps the keys and values that pass."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        self.keys.append(keys)
        self.values.append(values)
        return keys, values


@torch.inference_mode()
def encode_text(model: ShowO, ids: Sequence[int], position: int) -> Prefix:
    """Causal ids (P,), the first at `position` -> their keys and values. Always computed alone."""
    recorder = _Recorder()
    rows = torch.tensor([list(ids)], device=model.device)
    run_layers(model, rows, position, recorder, is_causal=True)
    return Prefix(torch.cat(recorder.keys), torch.cat(recorder.values), position + len(ids))


@torch.inference_mode()
def encode_correction(model: ShowO, ids: Sequence[int], num_image: int) -> Prefix:
    """`Layout.correction_text` (P,) from position 0 on, its first `num_image` ids seen by all -> keys and values."""
    recorder = _Recorder()
    rows = torch.tensor([list(ids)], device=model.device)
    is_image = torch.arange(len(ids), device=model.device)[None] < num_image
    run_layers(model, rows, 0, recorder, is_causal=False, mask=additive_mask(prefix_mask(is_image), model.dtype))
    return Prefix(torch.cat(recorder.keys), torch.cat(recorder.values), len(ids))


def image_ids(config: ShowOConfig, codes: Tensor) -> Tensor:
    """Codes (B, n) -> the ids (B, n + 2) of an image part: soi, codes, eoi."""
    ids = torch.nn.functional.pad(codes + config.code_offset, (1, 1))
    ids[:, 0], ids[:, -1] = config.soi_id, config.eoi_id
    return ids


def run_layers(
    model: ShowO, ids: Tensor, position: int | Tensor, cache: Cache, *, is_causal: bool, mask: Tensor | None = None
) -> Tensor:
    """ids (B, Q), the first at `position`, of all rows or (B,), behind what the cache puts in front -> (B, Q, D)"""
    phi = model.showo.model
    hidden = phi.embed_tokens(ids)
    steps = torch.arange(ids.shape[1], device=ids.device)
    positions = (position[:, None] if isinstance(position, Tensor) else position) + steps.expand(1, -1)
    rotary = phi.rotary_emb(hidden, position_ids=positions)
    for layer in phi.layers:
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_embeddings=rotary,
            past_key_values=cache,
            is_causal=is_causal,
        )
    return phi.final_layernorm(hidden)
