"""LLaVA-OneVision (Li et al. 2024) in two steps: pixels -> image features, embeddings -> answers. Stock transformers.

B = rows, S = image size, T = image positions of one tile, D = hidden size of the language model, L = sequence length,
V = vocabulary. The model in memory is transformers' `LlavaOnevisionForConditionalGeneration`; its state dict has the
names of `llava_manifest`. A row's numbers do not depend on the rows beside it.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genloop.checkpoint import load_tensors, save_folder
from genloop.models.llava.config import (
    LlavaConfig,
    canonical_names,
    check_llava_folder,
    llava_manifest,
    parse_hf_config,
)
from genloop.registry import require

__all__ = [
    "Llava",
    "build_llava",
    "embed_tokens",
    "first_token_logits",
    "image_features",
    "language_hidden",
    "llava_config",
    "load_llava",
    "save_llava",
]

Llava = Any  # LlavaOnevisionForConditionalGeneration, which is only imported when a model is built
_VECTOR = 32  # elements that the widest CPU kernels take at once; what is left over is computed another way
_ATTENTION = "sdpa_behind"
_SAVED = (  # names in memory -> those of the public files, which every version of transformers reads
    (re.compile(r"^model\.vision_tower\."), "vision_tower.vision_model."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.(?=multi_modal_projector\.|image_newline$)"), ""),
)


def build_llava(
    config: LlavaConfig, *, seed: int, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Llava:
    """A model with fresh weights keyed by `seed`, in training mode.

    Norms 1, biases 0; matrices of the language model N(0, initializer_range), all others N(0, 1 / fan-in).
    """
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: _fresh(key, shape, config, generator).to(device=device, dtype=dtype)
        for key, shape in llava_manifest(config).items()
    }
    return _assemble(config, state)


def load_llava(folder: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Llava:
    """A checkpoint folder in the layout of transformers or the original one -> the model, in eval mode.

    Another family, missing, unexpected or misshapen tensors are a ValueError, before any tensor is read.
    """
    config = check_llava_folder(folder)
    tensors = load_tensors(folder, device=str(device))
    names = canonical_names(tensors, config, folder)
    return _assemble(config, {new: tensors.pop(old).to(dtype) for old, new in names.items()}).eval()


def save_llava(model: Llava, folder: Path, files: Mapping[str, Mapping[str, Any] | bytes] | None = None) -> None:
    """Write config.json, model.safetensors and manifest.json as the public folders of transformers have them.

    `files` adds the tokenizer and what else belongs to it: {name: content}. An existing folder is replaced.
    """
    config = llava_config(model)
    state = model.state_dict()
    tensors = {_saved_name(key): state[key] for key in llava_manifest(config)}
    save_folder(folder, tensors, {"config.json": config.to_json(), **(files or {})}, weights="model.safetensors")


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
    model: Llava, embeds: Tensor, *, positions: Tensor | None = None, mask: Tensor | None = None, cache: Any = None
) -> Tensor:
    """Embeddings (B, L, D) -> normalised hidden states (B, L, D). Differentiable.

    Without a mask rows are causal and see all that the cache puts in front of them, so pads belong on the right. `mask`
    (B or 1, 1, L, K) is additive floats over what is in front and the new positions; `positions` (B or 1, L) are
    theirs, from 0 where they are not given.
    """
    language = model.model.language_model
    if positions is None:
        positions = torch.arange(embeds.shape[1], device=embeds.device)[None]
    rotary = _rotary(language, embeds, positions)
    hidden = embeds
    for layer in language.layers:
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_embeddings=rotary,
            past_key_values=cache,
            is_causal=mask is None,
        )
    return language.norm(hidden)


def first_token_logits(model: Llava, embeds: Tensor, lengths: Tensor) -> Tensor:
    """Embeddings (B, L, D) of rows of `lengths` (B,), pads on the right -> logits of the answer's first token (B, V).

    The head sees each row's last position only. fp32, differentiable.
    """
    hidden = language_hidden(model, embeds)
    last = hidden[torch.arange(len(hidden), device=hidden.device), lengths.to(hidden.device) - 1]
    return model.lm_head(last).float()


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The stock SDPA, in which causal rows without a mask may stand behind others: kernels count from the first key.

    query (B, heads, L, C), key and value (B, key heads, K, C) -> (B, L, heads, C). Rows of zeros in front cost less
    than a mask, with which no kernel leaves out what is not seen.
    """
    stock = require("transformers.integrations.sdpa_attention").sdpa_attention_forward
    behind = key.shape[2] - query.shape[2]
    if attention_mask is not None or not behind or not options.get("is_causal"):
        return stock(module, query, key, value, attention_mask, **options)
    output, _ = stock(module, F.pad(query, (0, 0, behind, 0)), key, value, None, **options)
    return output[:, behind:], None


def _register_attention() -> None:
    """Make `_attention` known to transformers; its own generation builds masks for it as for SDPA."""
    masks = require("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    require("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
    masks.register(_ATTENTION, masks["sdpa"])


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


def _fresh(key: str, shape: tuple[int, ...], config: LlavaConfig, generator: torch.Generator) -> Tensor:
    if "norm" in key:
        return (torch.ones if key.endswith("weight") else torch.zeros)(shape)
    if key.endswith("bias"):
        return torch.zeros(shape)
    if "language_model" in key or key.startswith("lm_head"):
        scale = config.text.initializer_range
    else:
        scale = 1 / math.sqrt(math.prod(shape[1:]) or shape[0]) if len(shape) > 1 else 1 / math.sqrt(shape[0])
    return torch.randn(shape, generator=generator) * scale


def _assemble(config: LlavaConfig, state: dict[str, Tensor]) -> Llava:
    """The stock modules around the given tensors; nothing is drawn from the global generator."""
    transformers = require("transformers")
    data = config.to_json()
    settings = transformers.LlavaOnevisionConfig(**data, attn_implementation="sdpa")
    with torch.device("meta"):
        model = transformers.LlavaOnevisionForConditionalGeneration(settings)
    if config.tie_word_embeddings:
        state = {**state, "lm_head.weight": state["model.language_model.embed_tokens.weight"]}
    model.load_state_dict(state, assign=True)
    if config.tie_word_embeddings:
        model.tie_weights()
    _fill_buffers(model)
    _register_attention()
    model.model.language_model.config._attn_implementation = _ATTENTION
    for layer in model.model.vision_tower.encoder.layers:
        layer.mlp.activation_fn = WholeVectors(layer.mlp.activation_fn)
    for layer in model.model.language_model.layers:
        layer.mlp.act_fn = WholeVectors(layer.mlp.act_fn)
    model.model.multi_modal_projector.act = WholeVectors(model.model.multi_modal_projector.act)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.train()


def _fill_buffers(model: Llava) -> None:
    """Give the tables that no checkpoint holds their values."""
    embeddings, language = model.model.vision_tower.embeddings, model.model.language_model
    device = language.embed_tokens.weight.device
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
    language.rotary_emb = type(language.rotary_emb)(config=language.config).to(device)


def _saved_name(key: str) -> str:
    return next(old.sub(new, key) for old, new in _SAVED if old.match(key))
