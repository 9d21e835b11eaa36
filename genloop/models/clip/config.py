"""A CLIP checkpoint, read from its config and headers: what it is, what it costs. No torch.

open_clip's layout has open_clip_config.json, or the weights alone; transformers' has config.json of type "clip", as in
the folder that OpenAI published, and is read by `genloop.models.clip.folder`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from genloop.checkpoint import read_shapes
from genloop.models.common.dims import check_layers
from genloop.reading import read_json_object

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
    config = read_json_object(folder / CONFIG_FILE).get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise ValueError(f"{folder / CONFIG_FILE}: no model_cfg with embed_dim, vision_cfg and text_cfg")
    if not all(isinstance(config[key], Mapping) for key in ("vision_cfg", "text_cfg")):
        raise ValueError(f"{folder / CONFIG_FILE}: vision_cfg and text_cfg must be JSON objects")
    check_layers(config, folder / CONFIG_FILE)
    if "multimodal_cfg" in config:
        raise ValueError(f"{folder / CONFIG_FILE}: a CoCa, which writes captions; use a CLIP")
    return config


def read_preprocess_config(folder: Path) -> Mapping[str, Any]:
    """The `preprocess_cfg` of a folder, {} where there is none."""
    config = read_json_object(folder / CONFIG_FILE).get("preprocess_cfg") or {}
    if not isinstance(config, Mapping):
        raise ValueError(f"{folder / CONFIG_FILE}: preprocess_cfg is {str(config)[:40]}, expected a JSON object")
    for key in ("mean", "std"):
        if config.get(key):
            check_channels(config[key], key, f"{folder / CONFIG_FILE}: preprocess_cfg.{key}")
    return config


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder has transformers' layout of a CLIP."""
    return (folder / "config.json").is_file() and read_json_object(folder / "config.json").get("model_type") == "clip"


def check_channels(values: Any, what: str, where: str) -> None:
    """ValueError unless `values` are three numbers; a `std` has to be above 0."""
    is_three = isinstance(values, list | tuple) and len(values) == 3 and all(type(v) in (int, float) for v in values)
    if not is_three or not all(math.isfinite(v) and (what != "std" or v > 0) for v in values):
        raise ValueError(f"{where} is {values!r}, expected three numbers; use the file published with the weights")


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
