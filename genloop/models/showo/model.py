"""Show-o (Xie et al. 2024): one transformer over text tokens and image codes, on the stock Phi of transformers.

B = rows, L = sequence length, D = hidden size, V = vocabulary, K = codebook size. Differences from stock Phi: q and k
are normalised per head, the caller's mask goes straight to the attention, and the vocabulary holds image codes.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genloop.checkpoint import compare_manifest, load_tensors, save_folder
from genloop.models.common.text import FileTokenizer, TextTokenizer, check_text_tokenizer
from genloop.models.showo.config import (
    PhiDims,
    ShowOConfig,
    check_showo_folder,
    read_showo_config,
    showo_manifest,
)
from genloop.registry import require

__all__ = [
    "PhiDims",
    "ShowO",
    "ShowOConfig",
    "additive_mask",
    "build_showo",
    "check_showo_folder",
    "load_showo",
    "read_showo_config",
    "save_showo",
    "showo_manifest",
]


class ShowO(nn.Module):
    """The transformer and what belongs to it; its state dict has the public key names."""

    def __init__(self, config: ShowOConfig, text_tokenizer: TextTokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self._text_tokenizer = text_tokenizer
        self.showo = require("transformers").PhiForCausalLM(_phi_config(config))
        if config.w_clip_vit:
            width = config.phi.hidden_size
            self.mm_projector = nn.Sequential(
                nn.Linear(config.clip_hidden_size, width), nn.GELU(), nn.Linear(width, width)
            )

    @property
    def text_tokenizer(self) -> TextTokenizer:
        if self._text_tokenizer is None:
            raise ValueError("this Show-o has no text tokenizer; give text_tokenizer= when building or loading it")
        return self._text_tokenizer

    @property
    def device(self) -> torch.device:
        return self.showo.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.showo.lm_head.weight.dtype

    def forward(self, ids: Tensor, allow: Tensor, *, start: int = 0) -> Tensor:
        """ids (B, L), allow (B or 1, 1, L, L): bool (True = attend) or additive floats -> logits (B, L - start, V).

        Only positions from `start` on go through the head. Logits keep the model's dtype.
        """
        return self.showo.lm_head(self.hidden(ids, allow)[:, start:])

    def hidden(self, ids: Tensor, allow: Tensor) -> Tensor:
        """As `forward`, but the normalised hidden states (B, L, D) in front of the head."""
        mask = additive_mask(allow, self.dtype)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        output = self.showo.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return output.last_hidden_state

    def code_logits(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> (..., K): the head's rows of the image codes."""
        first, last = self.config.code_offset, self.config.mask_token_id
        head = self.showo.lm_head
        return nn.functional.linear(hidden, head.weight[first:last], head.bias[first:last])


def additive_mask(allow: Tensor, dtype: torch.dtype) -> Tensor:
    """Bool mask (True = attend) -> 0 where allowed, the smallest float elsewhere; floats pass through.

    Every attention kernel reads additive floats alike; some take a bool mask for numbers.
    """
    if allow.dtype != torch.bool:
        return allow.to(dtype)
    return torch.zeros(allow.shape, dtype=dtype, device=allow.device).masked_fill_(~allow, torch.finfo(dtype).min)


def build_showo(
    config: ShowOConfig,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    text_tokenizer: TextTokenizer | None = None,
) -> ShowO:
    """A model with fresh weights: N(0, initializer_range) for matrices, 0 for biases, 1 for norms; keyed by `seed`."""
    model = _empty_showo(config, text_tokenizer)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in showo_manifest(config).items():
        if len(shape) == 2:
            value = torch.randn(shape, generator=generator) * config.phi.initializer_range
        else:
            value = torch.ones(shape) if "layernorm.weight" in key else torch.zeros(shape)
        state[key] = value.to(device=device, dtype=dtype)
    model.load_state_dict(state, assign=True)
    return _finish(model, device)


def load_showo(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    text_tokenizer: Path | TextTokenizer | None = None,
    max_seq_length: int | None = None,
) -> ShowO:
    """A checkpoint folder in one of the public layouts -> the model, in eval mode.

    The text tokenizer is `tokenizer/` in the folder, unless the caller gives a folder or a tokenizer. Missing,
    unexpected or misshapen tensors are a ValueError that lists them.
    """
    config = read_showo_config(folder, max_seq_length=max_seq_length)
    tokenizer = _find_tokenizer(folder, text_tokenizer)
    if tokenizer is not None:
        check_text_tokenizer(tokenizer, config.llm_vocab_size, folder)
    tensors = load_tensors(folder, device=device)
    compare_manifest(showo_manifest(config), {key: tuple(value.shape) for key, value in tensors.items()}, folder)
    model = _empty_showo(config, tokenizer)
    model.load_state_dict({key: value.to(dtype) for key, value in tensors.items()}, assign=True)
    return _finish(model, device).eval()


def save_showo(model: ShowO, folder: Path) -> None:
    """Write the public layout: config.json, phi/config.json, tokenizer/, pytorch_model.safetensors, manifest.json."""
    files: dict[str, Any] = {"config.json": model.config.to_json(), "phi/config.json": model.config.phi_to_json()}
    tokenizer = model._text_tokenizer
    if isinstance(tokenizer, FileTokenizer):
        files |= {f"tokenizer/{name}": content for name, content in tokenizer.files().items()}
    save_folder(folder, model.state_dict(), files)


def _find_tokenizer(folder: Path, given: Path | TextTokenizer | None) -> TextTokenizer | None:
    if isinstance(given, Path):
        return FileTokenizer(given)
    if given is None and (folder / "tokenizer").is_dir():
        return FileTokenizer(folder / "tokenizer")
    return given


def _empty_showo(config: ShowOConfig, text_tokenizer: TextTokenizer | None) -> ShowO:
    """The modules without memory behind them: nothing is drawn from the global generator."""
    with torch.device("meta"):
        return ShowO(config, text_tokenizer)


def _finish(model: ShowO, device: str) -> ShowO:
    """Give the rotary table, which no checkpoint holds, its values."""
    phi = model.showo
    phi.model.rotary_emb = type(phi.model.rotary_emb)(config=phi.config).to(device)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def _phi_config(config: ShowOConfig) -> Any:
    dims = asdict(config.phi)
    if dims["hidden_act"] == "gelu_new":  # the same function in one kernel instead of eight: a fifth of a CPU step
        dims["hidden_act"] = "gelu_pytorch_tanh"
    rope = {
        "rope_type": "default",
        "rope_theta": dims.pop("rope_theta"),
        "partial_rotary_factor": dims.pop("partial_rotary_factor"),
    }
    return require("transformers").PhiConfig(
        **dims,
        vocab_size=config.vocab_size,
        rope_parameters=rope,
        qk_layernorm=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
