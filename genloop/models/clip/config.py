"""A CLIP checkpoint, read from its config and headers: what it is, what it costs. No torch.

open_clip's layout has open_clip_config.json, or the weights alone; transformers' has config.json of type "clip", as in
the folder that OpenAI published.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genloop.checkpoint import compare_manifest, read_json, read_shapes
from genloop.models.clip.folder import (
    BUFFER,
    check_channels,
    check_tokenizer_files,
    check_tower,
    clip_manifest,
    read_pixels,
)
from genloop.registry import did_you_mean

Precision = Literal["float32", "autocast_float16"]
CONFIG_FILE = "open_clip_config.json"
OPENAI = "openai"  # the tag of weights that were trained with QuickGELU
QUICK = "quick_gelu"

_TEXT = {"context_length": 77, "vocab_size": 49408, "layers": 12}
ARCHITECTURES: dict[str, dict[str, Any]] = {  # those of OpenAI, in open_clip's words
    name: {
        "embed_dim": size,
        "vision_cfg": {"image_size": image, "layers": layers, "width": width, "patch_size": patch},
        "text_cfg": {**_TEXT, "width": size, "heads": size // 64},
    }
    for name, (size, image, layers, width, patch) in {
        "ViT-B-32": (512, 224, 12, 768, 32),
        "ViT-B-16": (512, 224, 12, 768, 16),
        "ViT-L-14": (768, 224, 24, 1024, 14),
        "ViT-L-14-336": (768, 336, 24, 1024, 14),
    }.items()
}
_TOWER = {  # transformers' words -> open_clip's
    "vision": {"image_size": "image_size", "num_hidden_layers": "layers", "hidden_size": "width"}
    | {"patch_size": "patch_size"},
    "text": {"max_position_embeddings": "context_length", "vocab_size": "vocab_size", "hidden_size": "width"}
    | {"num_attention_heads": "heads", "num_hidden_layers": "layers"},
}
_DEFAULTS: dict[str, dict[str, Any]] = {  # what transformers takes where config.json says nothing
    "vision": {"image_size": 224, "num_hidden_layers": 12, "hidden_size": 768, "patch_size": 32, "hidden_act": QUICK},
    "text": {"max_position_embeddings": 77, "vocab_size": 49408, "hidden_size": 512, "num_attention_heads": 8}
    | {"num_hidden_layers": 12, "hidden_act": QUICK},
}


def check_clip_folder(folder: Path, architecture: str | None = None) -> None:
    """Refuse a folder that is torn or holds another kind of model; reads headers only."""
    if architecture is None:
        read_model_config(folder)
        read_preprocess_config(folder)
    shapes = read_shapes(folder)
    if "logit_scale" not in shapes or not any(key.startswith("visual.") for key in shapes):
        raise ValueError(f"{folder} does not hold a CLIP model of open_clip (no logit_scale or no visual.*)")


def read_model_config(folder: Path) -> dict[str, Any]:
    """The `model_cfg` of a folder."""
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG_FILE}: not a folder of open_clip; name the architecture of its weights"
        )
    config = read_json(folder / CONFIG_FILE).get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise ValueError(f"{folder / CONFIG_FILE}: no model_cfg with embed_dim, vision_cfg and text_cfg")
    if not all(isinstance(config[key], Mapping) for key in ("vision_cfg", "text_cfg")):
        raise ValueError(f"{folder / CONFIG_FILE}: vision_cfg and text_cfg must be JSON objects")
    if "multimodal_cfg" in config:
        raise ValueError(f"{folder / CONFIG_FILE}: a CoCa, which writes captions; use a CLIP")
    return config


def read_preprocess_config(folder: Path) -> Mapping[str, Any]:
    """The `preprocess_cfg` of a folder, {} where there is none."""
    config = read_json(folder / CONFIG_FILE).get("preprocess_cfg") or {}
    if not isinstance(config, Mapping):
        raise ValueError(f"{folder / CONFIG_FILE}: preprocess_cfg is {str(config)[:40]}, expected a JSON object")
    for key in ("mean", "std"):
        if config.get(key):
            check_channels(config[key], key, f"{folder / CONFIG_FILE}: preprocess_cfg.{key}")
    return config


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder has transformers' layout of a CLIP."""
    return (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") == "clip"


def check_transformers_folder(folder: Path, architecture: str | None = None, published_as: str | None = None) -> None:
    """Refuse a folder of transformers that is torn, no CLIP, another one than is named, or has the wrong activation."""
    if not is_transformers_folder(folder):
        other = "; it has open_clip's layout: use backend=open_clip" if (folder / CONFIG_FILE).is_file() else ""
        raise ValueError(
            f"{folder} holds no config.json with model_type 'clip': not a CLIP folder of transformers{other}"
        )
    config = read_json(folder / "config.json")
    towers, embed_dim = _checked(config, folder / "config.json")
    check_activation(config, published_as, folder)
    if architecture is not None:
        _check_sizes(config, architecture, folder)
    shapes = {key: shape for key, shape in read_shapes(folder).items() if not key.endswith(BUFFER)}
    if "logit_scale" not in shapes or not any(key.startswith("vision_model.") for key in shapes):
        raise ValueError(f"{folder} does not hold a CLIP model of transformers (no logit_scale or no vision_model.*)")
    compare_manifest(clip_manifest(towers["vision"], towers["text"], embed_dim), shapes, folder)
    check_tokenizer_files(folder)
    read_pixels(folder, towers["vision"]["image_size"])


def _checked(config: Mapping[str, Any], where: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The settings of both towers and the size of the common space; ValueError for values that make no sense."""
    for key in (f"{side}_config{end}" for side in _TOWER for end in ("", "_dict")):
        if not isinstance(config.get(key), Mapping | None):
            raise ValueError(f"{where}: {key} is {str(config[key])[:40]!r}, expected a JSON object")
    embed_dim = config.get("projection_dim", 512)
    if type(embed_dim) is not int or embed_dim < 1:
        raise ValueError(f"{where}: projection_dim is {embed_dim!r}, expected a whole number above 0")
    towers = {side: _tower(config, side) for side in _TOWER}
    for side, settings in towers.items():
        check_tower(settings, f"{where}: {side}_config")
    return towers, embed_dim


def check_activation(config: Mapping[str, Any], published_as: str | None, where: object) -> None:
    """Refuse another activation than OpenAI's weights were trained with, when that is what they are said to be."""
    found = {side: _tower(config, side)["hidden_act"] for side in _TOWER}
    if published_as == OPENAI and set(found.values()) != {QUICK}:
        raise ValueError(
            f"{where}: config.json says hidden_act {found['vision']!r} for images and {found['text']!r} for texts, "
            f"weights published as 'openai' need {QUICK!r}; mend the config, or use pretrained=null for other weights"
        )


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of transformers -> the sizes in open_clip's words."""
    towers = {
        f"{side}_cfg": {ours: _tower(config, side)[theirs] for theirs, ours in words.items()}
        for side, words in _TOWER.items()
    }
    return {"embed_dim": config.get("projection_dim", 512), **towers}


def _tower(config: Mapping[str, Any], side: str) -> dict[str, Any]:
    """One tower's settings; `text_config_dict`, in OpenAI's own files, goes above `text_config`."""
    above = config.get(f"{side}_config_dict")
    return _DEFAULTS[side] | (config.get(f"{side}_config") or {}) | ({**_DEFAULTS[side], **above} if above else {})


def _check_sizes(config: Mapping[str, Any], architecture: str, folder: Path) -> None:
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {architecture!r}{did_you_mean(architecture, ARCHITECTURES)} "
            f"({', '.join(ARCHITECTURES)}); folders of transformers say it themselves: use architecture=null"
        )
    found, wanted = sizes(config), ARCHITECTURES[architecture]
    differ = [
        f"{group.removesuffix('_cfg')}.{key} is {found[group][key]}, not {value}"
        for group in ("vision_cfg", "text_cfg")
        for key, value in wanted[group].items()
        if found[group][key] != value
    ]
    if found["embed_dim"] != wanted["embed_dim"]:
        differ.append(f"embed_dim is {found['embed_dim']}, not {wanted['embed_dim']}")
    if differ:
        raise ValueError(f"{folder} does not hold a {architecture}: {', '.join(differ)}; use that one's folder")


def forward_flops(config: Mapping[str, Any]) -> float:
    """Operations of embedding one image and one text; 0 for towers that are not plain transformers."""
    image, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    try:
        grid = image["image_size"] // image["patch_size"]
        pixels = 2.0 * grid**2 * 3 * image["patch_size"] ** 2 * image["width"]
        towers = ((image, grid**2 + 1), (text, text.get("context_length", 77)))
        return pixels + sum(_transformer_flops(tower, positions) for tower, positions in towers)
    except (KeyError, TypeError):  # a convolutional or foreign tower
        return 0.0


def _transformer_flops(config: Mapping[str, Any], positions: int) -> float:
    """2 a multiply-add: four square projections and the MLP a position, attention between all positions."""
    width, layers = config["width"], config["layers"]
    projections = (4 + 2 * config.get("mlp_ratio", 4.0)) * width**2
    return float(2 * layers * positions * (projections + 2 * positions * width))
