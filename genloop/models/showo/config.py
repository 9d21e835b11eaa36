"""The shape of a Show-o checkpoint (Xie et al. 2024), read from its public config.json. No torch.

Vocabulary: text tokens | [PAD] and nine task tokens | K image codes | mask. Show-o's config.json does not hold the
dimensions of its language model: they come from `phi/config.json` in the folder, else they are Phi-1.5's.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from genloop.checkpoint import Shape, compare_manifest, read_shapes
from genloop.models.common.dims import read_dims
from genloop.reading import read_json_object

NUM_SPECIAL_TOKENS = 10
_PUBLIC_PHI = "microsoft/phi-1_5"


@dataclass(frozen=True, slots=True)
class PhiDims:
    """Dimensions of the Phi language model; the defaults are Phi-1.5's."""

    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 0.5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True)
class ShowOConfig:
    """Sizes and token ids of one Show-o model; the defaults are showlab/show-o's (256 px)."""

    codebook_size: int = 8192
    num_vq_tokens: int = 256
    llm_vocab_size: int = 50295
    w_clip_vit: bool = False
    max_seq_length: int = 128  # M: text tokens without the task token
    clip_hidden_size: int = 1024
    phi: PhiDims = field(default_factory=PhiDims)

    @property
    def code_offset(self) -> int:
        """Token id of image code 0."""
        return self.llm_vocab_size + NUM_SPECIAL_TOKENS

    @property
    def mask_token_id(self) -> int:
        return self.code_offset + self.codebook_size

    @property
    def vocab_size(self) -> int:
        return self.mask_token_id + 1

    @property
    def pad_id(self) -> int:
        return self.llm_vocab_size

    @property
    def soi_id(self) -> int:
        return self.llm_vocab_size + 1

    @property
    def eoi_id(self) -> int:
        return self.llm_vocab_size + 2

    @property
    def t2i_id(self) -> int:
        return self.llm_vocab_size + 5

    @property
    def mmu_id(self) -> int:
        return self.llm_vocab_size + 6

    @property
    def text_length(self) -> int:
        """Positions in front of the soi token: the task token and M text tokens."""
        return self.max_seq_length + 1

    @property
    def sequence_length(self) -> int:
        """Text part, soi, codes, eoi."""
        return self.text_length + self.num_vq_tokens + 2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid: square as in all public models, else as nearly square as n allows."""
        rows = next(r for r in range(math.isqrt(self.num_vq_tokens), 0, -1) if self.num_vq_tokens % r == 0)
        return rows, self.num_vq_tokens // rows

    def to_json(self) -> dict[str, Any]:
        """The public config.json; keys that the public ones lack are only there when they differ from the default."""
        public = {
            "_class_name": "Showo",
            "_diffusers_version": "0.30.1",
            "codebook_size": self.codebook_size,
            "llm_model_path": _PUBLIC_PHI,
            "llm_vocab_size": self.llm_vocab_size,
            "mask_token_id": self.mask_token_id,
            "num_vq_tokens": self.num_vq_tokens,
            "vocab_size": self.vocab_size,
            "w_clip_vit": self.w_clip_vit,
        }
        default = ShowOConfig()
        extra = ("max_seq_length", "clip_hidden_size")
        return public | {key: getattr(self, key) for key in extra if getattr(self, key) != getattr(default, key)}

    def phi_to_json(self) -> dict[str, Any]:
        """phi/config.json, in the form of microsoft/phi-1_5's."""
        return {"model_type": "phi", **asdict(self.phi), "qk_layernorm": True, "vocab_size": self.vocab_size}


def read_showo_config(folder: Path, *, max_seq_length: int | None = None) -> ShowOConfig:
    """config.json (+ phi/config.json) of a checkpoint folder; `max_seq_length` wins over the folder's (default 128)."""
    path = folder / "config.json"
    data = read_json_object(path)
    config: ShowOConfig = read_dims(ShowOConfig(phi=_read_phi(folder, data, path)), data, path)
    config = replace(config, max_seq_length=max_seq_length or config.max_seq_length)
    for key, value in (("mask_token_id", config.mask_token_id), ("vocab_size", config.vocab_size)):
        if data.get(key, value) != value:
            raise ValueError(
                f"{path}: {key} is {data[key]}, but {config.llm_vocab_size} text tokens, {NUM_SPECIAL_TOKENS} special "
                f"tokens and {config.codebook_size} codes make it {value}"
            )
    return config


def _read_phi(folder: Path, data: Mapping[str, Any], path: Path) -> PhiDims:
    source = folder / "phi" / "config.json"
    if not source.is_file():
        if not str(data.get("llm_model_path", _PUBLIC_PHI)).endswith("phi-1_5"):
            raise ValueError(
                f"{path}: llm_model_path is {data['llm_model_path']!r}, whose sizes are only known for {_PUBLIC_PHI}; "
                f"put its config.json at {source}"
            )
        return PhiDims()
    given = read_json_object(source)
    phi: PhiDims = read_dims(
        PhiDims(), {"num_key_value_heads": None, **(given.get("rope_parameters") or {}), **given}, source
    )
    if phi.hidden_size % phi.num_attention_heads:
        raise ValueError(
            f"{source}: hidden_size {phi.hidden_size} is not a multiple of "
            f"num_attention_heads {phi.num_attention_heads}"
        )
    return phi


def showo_manifest(config: ShowOConfig) -> dict[str, Shape]:
    """{key: shape} of every tensor of a Show-o checkpoint, in the order of the public files."""
    phi, vocab = config.phi, config.vocab_size
    width, inner, head = phi.hidden_size, phi.intermediate_size, phi.head_dim
    kv = head * phi.num_key_value_heads
    linear = {"q_proj": (width, width), "k_proj": (kv, width), "v_proj": (kv, width), "dense": (width, width)}
    layer: dict[str, Shape] = {}
    for name, shape in linear.items():
        layer |= {f"self_attn.{name}.weight": shape, f"self_attn.{name}.bias": shape[:1]}
    for name in ("q_layernorm", "k_layernorm"):
        layer |= {f"self_attn.{name}.weight": (head,), f"self_attn.{name}.bias": (head,)}
    for name, shape in (("fc1", (inner, width)), ("fc2", (width, inner))):
        layer |= {f"mlp.{name}.weight": shape, f"mlp.{name}.bias": shape[:1]}
    layer |= {"input_layernorm.weight": (width,), "input_layernorm.bias": (width,)}
    manifest: dict[str, Shape] = {"showo.model.embed_tokens.weight": (vocab, width)}
    for index in range(phi.num_hidden_layers):
        manifest |= {f"showo.model.layers.{index}.{name}": shape for name, shape in layer.items()}
    manifest |= {f"showo.model.final_layernorm.{name}": (width,) for name in ("weight", "bias")}
    manifest |= {"showo.lm_head.weight": (vocab, width), "showo.lm_head.bias": (vocab,)}
    if config.w_clip_vit:
        manifest |= {"mm_projector.0.weight": (width, config.clip_hidden_size), "mm_projector.0.bias": (width,)}
        manifest |= {"mm_projector.2.weight": (width, width), "mm_projector.2.bias": (width,)}
    return manifest


def check_showo_folder(folder: Path) -> ShowOConfig:
    """Refuse a folder whose files are torn or do not fit its config.json; reads headers only."""
    shapes = read_shapes(folder)
    config = read_showo_config(folder)
    compare_manifest(showo_manifest(config), shapes, folder)
    return config
