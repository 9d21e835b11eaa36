"""A CLIP checkpoint in open_clip's layout, read from its config and headers: what it is, what it costs. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.checkpoint import read_json, read_shapes

CONFIG_FILE = "open_clip_config.json"


def check_clip_folder(folder: Path, architecture: str | None = None) -> None:
    """Refuse a folder that is torn or holds another kind of model; reads headers only."""
    if architecture is None:
        read_model_config(folder)
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
    if "multimodal_cfg" in config:
        raise ValueError(f"{folder / CONFIG_FILE}: a CoCa, which writes captions; use a CLIP")
    return config


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
