"""LLaVA-OneVision models: fresh, from a checkpoint folder in any public layout, written as transformers' folders."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.checkpoint import load_tensors, save_folder
from genloop.models.llava.config import LlavaConfig, canonical_names, check_llava_folder, llava_manifest
from genloop.models.llava.model import Llava, WholeVectors, llava_config, use_causal_attention
from genloop.registry import require

_SAVED = (  # names in memory -> those of the public files, which every version of transformers reads
    (re.compile(r"^model\.vision_tower\."), "vision_tower.vision_model."),
    (re.compile(r"^model\.language_model\."), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^model\.(?=multi_modal_projector\.|image_newline$)"), ""),
)


def build_llava(
    config: LlavaConfig,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    drawn_on: str = "cpu",
) -> Llava:
    """A model with fresh weights keyed by `seed`, in training mode.

    Norms 1, biases 0; matrices of the language model N(0, initializer_range), all others N(0, 1 / fan-in).
    They are drawn on the CPU, which takes minutes for 7B weights; another `drawn_on` has other numbers.
    """
    generator = torch.Generator(drawn_on).manual_seed(seed)
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


def _fresh(key: str, shape: tuple[int, ...], config: LlavaConfig, generator: torch.Generator) -> Tensor:
    if "norm" in key:
        return (torch.ones if key.endswith("weight") else torch.zeros)(shape)
    if key.endswith("bias"):
        return torch.zeros(shape)
    if "language_model" in key or key.startswith("lm_head"):
        scale = config.text.initializer_range
    else:
        scale = 1 / math.sqrt(math.prod(shape[1:]) or shape[0]) if len(shape) > 1 else 1 / math.sqrt(shape[0])
    return torch.randn(shape, generator=generator, device=generator.device) * scale


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
    use_causal_attention(model)
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
