"""The shape of a LLaVA-OneVision checkpoint (Li et al. 2024), read from its config.json. No torch.

Two public layouts of the same model are read: that of transformers (`llava_onevision`, the names of its versions 4 and
5) and the original one (`llava_qwen`). A SigLIP vision tower, a two-layer projector, a Qwen2 language model.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genloop.checkpoint import Shape, compare_manifest, read_shapes
from genloop.models.common.dims import checked, read_dims
from genloop.reading import read_json_object

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu")
_MOST_TILES = 64  # a side, of any model
_LARGEST_GRID = 6  # tiles a side of the public models' largest picture


@dataclass(frozen=True, slots=True)
class VisionDims:
    """Dimensions of the SigLIP tower; the defaults are so400m-patch14-384's without its last layer."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 26
    num_attention_heads: int = 16
    image_size: int = 384
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @property
    def grid(self) -> int:
        """Patches a side; what is left over at the right and at the bottom is not looked at."""
        return self.image_size // self.patch_size


@dataclass(frozen=True, slots=True)
class TextDims:
    """Dimensions of the Qwen2 language model; the defaults are those of the public 7B checkpoints."""

    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    vocab_size: int = 152064
    max_position_embeddings: int = 32768
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, slots=True)
class LlavaConfig:
    """Sizes of one LLaVA-OneVision; the defaults are those of the public 7B checkpoints."""

    vision: VisionDims = field(default_factory=VisionDims)
    text: TextDims = field(default_factory=TextDims)
    rope_theta: float = 1e6
    tie_word_embeddings: bool = False
    projector_hidden_act: str = "gelu"
    vision_feature_layer: int = -1
    vision_aspect_ratio: str = "anyres_max_9"
    image_grid_pinpoints: tuple[tuple[int, int], ...] = ()  # (height, width) of tiled pictures; (): 1x1 to 6x6 tiles
    image_token_index: int = 151646
    video_token_index: int = 151647

    @property
    def num_image_positions(self) -> int:
        """Positions of one tile in the language model: its patches and the newline behind them."""
        return self.vision.grid**2 + 1

    @property
    def num_vision_layers(self) -> int:
        """Layers of the tower that run: features are taken in front of its last norm."""
        layer = self.vision_feature_layer
        return layer if layer >= 0 else self.vision.num_hidden_layers + 1 + layer

    @property
    def pinpoints(self) -> tuple[tuple[int, int], ...]:
        """(height, width) in pixels of the pictures that tiles can make up."""
        return self.image_grid_pinpoints or _usual_pinpoints(self.vision.image_size)

    def to_json(self) -> dict[str, Any]:
        """config.json in the layout of transformers; read by its versions 4 and 5."""
        rope = {"rope_type": "default", "rope_theta": self.rope_theta}
        text = {"model_type": "qwen2", **asdict(self.text), "rope_theta": self.rope_theta, "rope_parameters": rope}
        return {
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "model_type": "llava_onevision",
            "image_grid_pinpoints": [list(pair) for pair in self.pinpoints],
            "image_token_index": self.image_token_index,
            "video_token_index": self.video_token_index,
            "projector_hidden_act": self.projector_hidden_act,
            "multimodal_projector_bias": True,
            "tie_word_embeddings": self.tie_word_embeddings,
            "vision_aspect_ratio": self.vision_aspect_ratio,
            "vision_feature_layer": self.vision_feature_layer,
            "vision_feature_select_strategy": "full",
            "text_config": {**text, "tie_word_embeddings": self.tie_word_embeddings, "use_sliding_window": False},
            "vision_config": {"model_type": "siglip_vision_model", **asdict(self.vision), "vision_use_head": False},
        }


# What transformers takes for a key that a config.json leaves out.
_TEXT_DEFAULTS = TextDims(4096, 22016, 32, 32, 32, 151936, 32768)
_VISION_DEFAULTS = VisionDims(768, 3072, 12, 12, 224, 16)
# Towers that the original layout knows by name alone: layers as published, the last of which it deletes.
_TOWERS = {"google/siglip-so400m-patch14-384": VisionDims()}


def read_llava_config(folder: Path) -> LlavaConfig:
    """config.json of a checkpoint folder in either layout; ValueError when it is another family's."""
    path = folder / "config.json"
    data = read_json_object(path)
    family, architectures = data.get("model_type"), data.get("architectures") or []
    if family == "llava_onevision":
        config = parse_hf_config(data, path)
    elif family == "llava_qwen" or (family == "llava" and "LlavaQwenForCausalLM" in architectures):
        config = _read_original(data, path)
    else:
        raise ValueError(
            f"{path}: model_type is {family!r}, another family; a LLaVA-OneVision checkpoint has 'llava_onevision' "
            "(transformers) or 'llava_qwen' (original)"
        )
    if data.get("quantization_config"):
        raise ValueError(f"{path}: quantization_config: yes or no judges read full weights; name the original ones")
    _check_dims(config, path)
    return config


def parse_hf_config(data: Mapping[str, Any], path: object) -> LlavaConfig:
    """The content of a config.json in the layout of transformers; `path` is where it comes from, for messages."""
    text, vision = (
        _group(data, "text_config", "qwen2", path),
        _group(data, "vision_config", "siglip_vision_model", path),
    )
    for key, wanted in (("vision_feature_select_strategy", "full"), ("multimodal_projector_bias", True)):
        if data.get(key, wanted) != wanted:
            raise ValueError(f"{path}: {key} is {data[key]!r}, only {wanted!r} is known")
    layer = data.get("vision_feature_layer", -1)
    if not isinstance(layer, int):
        raise ValueError(f"{path}: vision_feature_layer is {layer!r}, only a single layer is known")
    dims: VisionDims = read_dims(_VISION_DEFAULTS if vision else VisionDims(), vision, path)
    return LlavaConfig(
        vision=dims,
        text=read_dims(_TEXT_DEFAULTS, text, path),
        rope_theta=_rope_theta(text, path),
        tie_word_embeddings=bool(data.get("tie_word_embeddings") or text.get("tie_word_embeddings", False)),
        projector_hidden_act=checked("projector_hidden_act", data.get("projector_hidden_act", "gelu"), "", path),
        vision_feature_layer=layer,
        vision_aspect_ratio=checked("vision_aspect_ratio", data.get("vision_aspect_ratio", "anyres_max_9"), "", path),
        image_grid_pinpoints=_pinpoints(data.get("image_grid_pinpoints"), dims.image_size, path),
        image_token_index=_token(data, "image_token", 151646, path),
        video_token_index=_token(data, "video_token", 151647, path),
    )


def _read_original(data: Mapping[str, Any], path: object) -> LlavaConfig:
    """The flat config of `llava_qwen`. A tower that is not known by name stands in a `vision_config` beside it."""
    tower = data.get("mm_vision_tower", next(iter(_TOWERS)))
    if "vision_config" in data:
        vision = read_dims(VisionDims(), _group(data, "vision_config", "siglip_vision_model", path), path)
    elif tower in list(_TOWERS):
        vision = _TOWERS[tower]
    else:
        raise ValueError(
            f"{path}: mm_vision_tower is {tower!r}, whose sizes are only known for {', '.join(_TOWERS)}; "
            "put them under vision_config"
        )
    if data.get("mm_projector_type", "mlp2x_gelu") != "mlp2x_gelu":
        raise ValueError(f"{path}: mm_projector_type is {data['mm_projector_type']!r}, only 'mlp2x_gelu' is known")
    aspect = checked("image_aspect_ratio", data.get("image_aspect_ratio", "anyres_max_9"), "", path)
    return LlavaConfig(
        vision=vision,
        text=read_dims(_TEXT_DEFAULTS, data, path),
        rope_theta=_rope_theta(data, path),
        tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
        vision_aspect_ratio=aspect if aspect.startswith("anyres_max_") else "anyres_max_9",
        image_grid_pinpoints=_pinpoints(data.get("image_grid_pinpoints"), vision.image_size, path),
        image_token_index=_token(data, "image_token", 151646, path),
    )


def _group(data: Mapping[str, Any], key: str, family: str, path: object) -> Mapping[str, Any]:
    group = data.get(key) or {}
    if not isinstance(group, Mapping):
        raise ValueError(f"{path}: {key} is {group!r}, expected a group of keys")
    if group.get("model_type", family) != family:
        raise ValueError(f"{path}: {key}.model_type is {group['model_type']!r}, only {family!r} is known")
    return group


def _token(data: Mapping[str, Any], name: str, default: int, path: object) -> int:
    key = f"{name}_index" if f"{name}_index" in data else f"{name}_id"
    return checked(key, data.get(key, default), default, path)


def _rope_theta(text: Mapping[str, Any], path: object) -> float:
    key = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    rope = _group(text, key, "", path)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{path}: rope_type is {kind!r}, only 'default' is known")
    if text.get("use_sliding_window"):
        raise ValueError(f"{path}: use_sliding_window is true; only full attention is known")
    return float(checked("rope_theta", rope.get("rope_theta", text.get("rope_theta", 10000.0)), 1.0, path))


def _pinpoints(value: Any, tile: int, path: object) -> tuple[tuple[int, int], ...]:
    """[[height, width], ...], or "(1x1),...,(6x6)" in tiles; () for the usual ones."""
    if isinstance(value, str):
        corners = [(int(rows), int(columns)) for rows, columns in re.findall(r"\((\d+)x(\d+)\)", value)]
        if len(corners) != 2 or max(map(max, corners)) > _MOST_TILES:
            raise ValueError(f"{path}: image_grid_pinpoints is {value!r:.100}, expected pairs or '(1x1),...,(6x6)'")
        (low_rows, low_columns), (rows, columns) = corners
        sides = [range(low_rows, rows + 1), range(low_columns, columns + 1)]
        value = [(row * tile, column * tile) for row in sides[0] for column in sides[1]]
    try:
        pairs = tuple((int(height), int(width)) for height, width in value or ())
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: image_grid_pinpoints is {value!r:.100}, expected pairs of numbers") from None
    return () if pairs == _usual_pinpoints(tile) else pairs


def _usual_pinpoints(tile: int) -> tuple[tuple[int, int], ...]:
    sides = range(1, _LARGEST_GRID + 1)
    return tuple((rows * tile, columns * tile) for rows in sides for columns in sides)


def _check_dims(config: LlavaConfig, path: object) -> None:
    vision, text = config.vision, config.text
    for act in (vision.hidden_act, text.hidden_act, config.projector_hidden_act):
        if act not in _ACTIVATIONS:
            raise ValueError(f"{path}: hidden_act is {act!r}, only {', '.join(_ACTIVATIONS)} are known")
    for what, width, heads in (
        ("vision", vision.hidden_size, vision.num_attention_heads),
        ("text", text.hidden_size, text.num_attention_heads),
        ("text", text.num_attention_heads, text.num_key_value_heads),
    ):
        if width % heads:
            raise ValueError(f"{path}: {what}: {width} is not a multiple of {heads} attention heads")
    if not 0 <= config.num_vision_layers <= vision.num_hidden_layers:
        raise ValueError(
            f"{path}: vision_feature_layer is {config.vision_feature_layer}, the tower has {vision.num_hidden_layers}"
        )


_RENAMED = tuple(
    (re.compile(old), new)
    for old, new in (
        (r"^(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?", "model.vision_tower."),
        (r"^(model\.)?(mm_projector\.0|multi_modal_projector\.linear_1)\.", "model.multi_modal_projector.linear_1."),
        (r"^(model\.)?(mm_projector\.2|multi_modal_projector\.linear_2)\.", "model.multi_modal_projector.linear_2."),
        (r"^(model\.)?image_newline$", "model.image_newline"),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^(language_model\.model|model\.language_model)\.", "model.language_model."),
        (r"^model\.(?=(embed_tokens|layers|norm)\.)", "model.language_model."),
    )
)
_UNUSED = re.compile(r"^model\.(vision_tower\.(head\.|embeddings\.position_ids$)|.*\.rotary_emb\.inv_freq$)")


def canonical_names(names: Iterable[str], config: LlavaConfig, where: object) -> dict[str, str]:
    """{name in a file: name in memory} for every tensor that the model uses; ValueError when two mean the same."""
    found: dict[str, str] = {}
    for name in names:
        new = next((old.sub(to, name) for old, to in _RENAMED if old.match(name)), name)
        if _UNUSED.match(new) or (config.tie_word_embeddings and new == "lm_head.weight"):
            continue
        found[name] = new
    if len(set(found.values())) < len(found):
        twice = next(new for new in found.values() if list(found.values()).count(new) > 1)
        raise ValueError(f"{where}: several tensors mean {twice}; use a checkpoint in one layout")
    return found


def llava_manifest(config: LlavaConfig) -> dict[str, Shape]:
    """{key: shape} of every tensor of the model in memory, but for a head that is tied to the embedding."""
    vision, text = config.vision, config.text
    width, inner, seen = text.hidden_size, text.intermediate_size, vision.hidden_size
    tower, language = "model.vision_tower", "model.language_model"
    kv = text.head_dim * text.num_key_value_heads
    manifest: dict[str, Shape] = {
        "model.image_newline": (width,),
        f"{tower}.embeddings.patch_embedding.weight": (seen, 3, vision.patch_size, vision.patch_size),
        f"{tower}.embeddings.patch_embedding.bias": (seen,),
        f"{tower}.embeddings.position_embedding.weight": (vision.grid**2, seen),
    }
    layer = _linears({f"self_attn.{name}_proj": (seen, seen) for name in ("k", "v", "q", "out")})
    layer |= _linears({"mlp.fc1": (vision.intermediate_size, seen), "mlp.fc2": (seen, vision.intermediate_size)})
    layer |= {f"layer_norm{i}.{part}": (seen,) for i in (1, 2) for part in ("weight", "bias")}
    for index in range(vision.num_hidden_layers):
        manifest |= {f"{tower}.encoder.layers.{index}.{name}": shape for name, shape in layer.items()}
    manifest |= {f"{tower}.post_layernorm.{part}": (seen,) for part in ("weight", "bias")}
    projector = _linears({"linear_1": (width, seen), "linear_2": (width, width)})
    manifest |= {f"model.multi_modal_projector.{name}": shape for name, shape in projector.items()}
    manifest[f"{language}.embed_tokens.weight"] = (text.vocab_size, width)
    block = _linears({f"self_attn.{name}_proj": (rows, width) for name, rows in (("q", width), ("k", kv), ("v", kv))})
    block |= {"self_attn.o_proj.weight": (width, width), "mlp.gate_proj.weight": (inner, width)}
    block |= {"mlp.up_proj.weight": (inner, width), "mlp.down_proj.weight": (width, inner)}
    block |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    for index in range(text.num_hidden_layers):
        manifest |= {f"{language}.layers.{index}.{name}": shape for name, shape in block.items()}
    manifest[f"{language}.norm.weight"] = (width,)
    return manifest if config.tie_word_embeddings else manifest | {"lm_head.weight": (text.vocab_size, width)}


def _linears(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Weights and biases of linear layers."""
    return {f"{name}.weight": shape for name, shape in shapes.items()} | {
        f"{name}.bias": shape[:1] for name, shape in shapes.items()
    }


def check_llava_folder(folder: Path) -> LlavaConfig:
    """Refuse a folder of another family, or whose files are torn or do not fit its config.json; reads headers only."""
    config = read_llava_config(folder)
    shapes = read_shapes(folder)
    names = canonical_names(shapes, config, folder)
    compare_manifest(llava_manifest(config), {new: shapes[old] for old, new in names.items()}, folder)
    return config
