"""LLaVA-OneVision (Li et al. 2024) in two steps: pixels -> image features, embeddings -> answers. Stock transformers.

B = rows, S = image size, T = image positions of one tile, D = hidden size of the language model, L = sequence length,
V = vocabulary. The model in memory is transformers' `LlavaOnevisionForConditionalGeneration`; its state dict has the
names of `genloop.models.llava.config.llava_manifest`. A row's numbers do not depend on the rows beside it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genloop.models.llava.config import LlavaConfig, parse_hf_config
from genloop.models.showo.model import additive_mask
from genloop.registry import require

Llava = Any  # LlavaOnevisionForConditionalGeneration, which is only imported when a model is built
_VECTOR = 32  # elements that the widest CPU kernels take at once; what is left over is computed another way
_ATTENTION = "sdpa_behind"
_FEW = 8  # a query is short when so many of it go into what is in front of it


def llava_config(model: Llava) -> LlavaConfig:
    """The sizes of a model in memory."""
    return parse_hf_config(model.config.to_dict(), "the model")


def image_features(model: Llava, pixels: Tensor) -> Tensor:
    """Normalised pixels (B, 3, S, S) -> what the language model sees (B, T, D): patches, then the newline.

    Features are those in front of the tower's last norm. Differentiable.
    """
    patches = tile_features(model, pixels)
    newline = model.model.image_newline.to(patches.dtype).expand(len(patches), 1, -1)
    return torch.cat([patches, newline], dim=1)


def tile_features(model: Llava, pixels: Tensor) -> Tensor:
    """Normalised pixels (B, 3, S, S) -> projected patches in reading order (B, T - 1, D)."""
    tower = model.model.vision_tower
    config = tower.config
    patch, grid = config.patch_size, config.image_size // config.patch_size
    weight, bias = tower.embeddings.patch_embedding.weight, tower.embeddings.patch_embedding.bias
    # A linear layer over cut patches: a convolution's last bit depends on the number of images.
    cut = pixels[:, :, : grid * patch, : grid * patch].to(weight.dtype)
    cut = cut.unflatten(3, (grid, patch)).unflatten(2, (grid, patch)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    hidden = F.linear(cut, weight.flatten(1), bias) + tower.embeddings.position_embedding.weight
    chosen = model.config.vision_feature_layer  # from the end when negative: -1 is what the last layer gives
    for layer in tower.encoder.layers[: chosen if chosen >= 0 else config.num_hidden_layers + 1 + chosen]:
        hidden = layer(hidden, None)
    return model.model.multi_modal_projector(hidden)


def embed_tokens(model: Llava, ids: Tensor) -> Tensor:
    """ids (..., L) -> embeddings (..., L, D)."""
    return model.model.language_model.embed_tokens(ids)


def language_hidden(
    model: Llava,
    embeds: Tensor,
    *,
    positions: Tensor | None = None,
    mask: Tensor | None = None,
    cache: Any = None,
    tail: int | None = None,
) -> Tensor:
    """Embeddings (B, L, D) -> normalised hidden states (B, L, D), or of the last `tail` positions. Differentiable.

    Without a mask rows are causal and see all that the cache puts in front of them, so pads belong on the right. `mask`
    (B or 1, 1, L, K) is additive floats over what is in front and the new positions; `positions` (B or 1, L) are
    theirs, from 0 where they are not given. `tail` leaves out what only the other positions' states need: all of the
    last layer but their keys and values, which the cache has to take.
    """
    language = model.model.language_model
    if positions is None:
        positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
    rotary: tuple[Tensor, ...] = _rotary(language, embeds, positions)
    hidden, is_causal = embeds, mask is None
    for number, layer in enumerate(language.layers, 1):
        if tail is not None and number == len(language.layers) and tail < hidden.shape[1]:
            cache = _behind(layer, hidden[:, :-tail], tuple(part[:, :-tail] for part in rotary), cache)
            hidden, rotary = hidden[:, -tail:], tuple(part[:, -tail:] for part in rotary)
            mask = None if mask is None else mask[:, :, -tail:]
        hidden = layer(
            hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=cache, is_causal=is_causal
        )
    return language.norm(hidden)


class _Joined:
    """A cache that is given keys and values (B, H, n, C) of further positions with those of the last ones."""

    def __init__(self, keys: Tensor, values: Tensor, cache: Any) -> None:
        self.keys, self.values, self.cache = keys, values, cache

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        return self.cache.update(*both, layer_idx) if self.cache is not None else both


def _behind(layer: nn.Module, hidden: Tensor, rotary: tuple[Tensor, ...], cache: Any) -> _Joined:
    """What later positions see of these ones (B, n, D) in a layer: their keys and values alone."""
    rotate = require("transformers.models.qwen2.modeling_qwen2").apply_rotary_pos_emb
    attention: Any = layer.self_attn
    normed = layer.input_layernorm(hidden)  # type: ignore[operator]
    keys, values = (
        projection(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for projection in (attention.k_proj, attention.v_proj)
    )
    return _Joined(rotate(keys, keys, *rotary)[1], values, cache)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The stock SDPA, in which causal rows without a mask may stand behind others: kernels count from the first key.

    query (B, heads, L, C), key and value (B, key heads, K, C) -> (B, L, heads, C). Rows of zeros in front cost less
    than a mask, with which no kernel leaves out what is not seen; few rows behind many cost less with one.
    """
    stock = require("transformers.integrations.sdpa_attention").sdpa_attention_forward
    behind = key.shape[2] - query.shape[2]
    if attention_mask is not None or not behind or not options.get("is_causal"):
        return stock(module, query, key, value, attention_mask, **options)
    if query.shape[2] < behind // _FEW:
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(behind)
        return stock(module, query, key, value, additive_mask(seen, query.dtype), **options)
    output, _ = stock(module, F.pad(query, (0, 0, behind, 0)), key, value, None, **options)
    return output[:, behind:], None


def use_causal_attention(model: Llava) -> None:
    """Let the language model attend by `_attention`; transformers' own generation builds masks for it as for SDPA."""
    masks = require("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    require("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
    masks.register(_ATTENTION, masks["sdpa"])
    model.model.language_model.config._attn_implementation = _ATTENTION


class WholeVectors(nn.Module):
    """An elementwise function over a length that no kernel has to treat the end of in another way.

    The vectorised and the scalar exponential differ in the last bit, so what a row gives would depend on its place.
    """

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        rest = -x.numel() % _VECTOR
        if not rest:
            return self.function(x)
        return self.function(F.pad(x.flatten(), (0, rest)))[: x.numel()].view_as(x)


def _rotary(language: Any, embeds: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B or 1, L, C), looked up in a table that all rows share."""
    length = int(positions.max()) // _VECTOR * _VECTOR + _VECTOR
    cosines, sines = language.rotary_emb(embeds, torch.arange(length, device=embeds.device)[None])
    return cosines[0][positions], sines[0][positions]
