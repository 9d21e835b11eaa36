"""Show-o (Xie et al. 2024): one transformer over text tokens and image codes, on the stock Phi of transformers.

B = rows, L = sequence length, D = hidden size, V = vocabulary, K = codebook size. Differences from stock Phi: q and k
are normalised per head, the caller's mask goes straight to the attention, and the vocabulary holds image codes.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from genloop.models.common.text import TextTokenizer
from genloop.models.showo.config import ShowOConfig
from genloop.registry import require


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
