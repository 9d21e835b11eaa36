"""CLIP (Radford et al. 2021) through open_clip: images and texts as unit vectors of one space.

A folder in open_clip's layout is read: open_clip_config.json (`model_cfg`, `preprocess_cfg`) and the weights, or the
weights alone when the architecture is named. OpenAI's weights were trained with QuickGELU; with plain GELU, which newer
open_clip builds for the same architecture, they give other vectors without any complaint.

B = images, T = texts, D = embedding size, H, W = pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from genloop.checkpoint import compare_manifest, load_tensors, read_json, read_shapes
from genloop.registry import did_you_mean, require

CONFIG_FILE = "open_clip_config.json"
_MIN_ROWS = 8  # with fewer, matrix products take other kernels, whose last bit differs


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From pixels to what the image tower sees; the defaults are OpenAI's."""

    size: int
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"  # the shortest side becomes `size`, then the middle is cut out; or squash

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 3, size, size) float32, resized to 8-bit pixels as Pillow does"""
        height, width = pixels.shape[-2:]
        sizes = (self.size, self.size)
        if self.resize_mode == "shortest":
            short = min(height, width)
            sizes = (int(self.size * height / short), int(self.size * width / short))
        resized = pixels.float()
        if sizes != (height, width):
            resized = interpolate(resized, sizes, mode=self.interpolation, antialias=True).round().clamp(0, 255)
        top, left = (round((side - self.size) / 2) for side in sizes)
        cut = resized[..., top : top + self.size, left : left + self.size] / 255
        mean, std = (cut.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (cut - mean) / std


class ClipEmbedder:
    """A CLIP network with its tokenizer and its pixels."""

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Callable[[Sequence[str]], Tensor],
        preprocessing: Preprocessing,
        *,
        device: str = "cpu",
        rows_per_forward: int = 64,
    ) -> None:
        self.network, self.tokenizer = network.to(device).eval().requires_grad_(False), tokenizer
        self.preprocessing, self.device, self.rows_per_forward = preprocessing, device, rows_per_forward

    def embed_images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, D) float32 of length 1"""
        return self._embed(self.network.encode_image, self.preprocessing(pixels.to(self.device)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """-> (T, D) float32 of length 1"""
        return self._embed(self.network.encode_text, self.tokenizer(list(texts)).to(self.device))

    @torch.inference_mode()
    def _embed(self, tower: Any, rows: Tensor) -> Tensor:
        """Never fewer than eight rows, so that a row's bits do not depend on how many others there are."""
        parts = []
        for part in rows.split(max(self.rows_per_forward, _MIN_ROWS)):
            missing = max(0, _MIN_ROWS - len(part))
            padded = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])
            parts.append(tower(padded)[: len(part)].float())
        return normalize(torch.cat(parts), dim=-1)


def check_clip_folder(folder: Path, architecture: str | None = None) -> None:
    """Refuse a folder that is torn or holds another kind of model; reads headers only."""
    if architecture is None:
        _model_config(folder)
    shapes = read_shapes(folder)
    if "logit_scale" not in shapes or not any(key.startswith("visual.") for key in shapes):
        raise ValueError(f"{folder} does not hold a CLIP model of open_clip (no logit_scale or no visual.*)")


def load_clip(
    folder: Path,
    *,
    architecture: str | None = None,
    published_as: str | None = None,
    device: str = "cpu",
    rows_per_forward: int = 64,
) -> ClipEmbedder:
    """The model in `folder`, in float32. `architecture`: open_clip's name of it, where the folder has no config;
    `published_as`: open_clip's tag of the weights, which decides the activation and the pixels.
    """
    open_clip = require("open_clip", "clip")
    name = f"local-dir:{folder}" if architecture is None else _known_architecture(open_clip, architecture)
    tag = _tag(open_clip, architecture, published_as)
    quick = published_as == "openai" or bool(tag.get("quick_gelu"))
    network = open_clip.create_model(name, load_weights=False, pretrained_text=False, force_quick_gelu=quick)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    compare_manifest(expected, read_shapes(folder), folder)
    network.load_state_dict(load_tensors(folder))
    if quick and not any(isinstance(module, open_clip.transformer.QuickGELU) for module in network.modules()):
        raise ValueError(f"{folder}: weights published as {published_as!r} need QuickGELU, which {name} does not have")
    pixels = {**open_clip.get_model_preprocess_cfg(network), **{k: tag[k] for k in ("mean", "std") if k in tag}}
    tokenizer = open_clip.get_tokenizer(name)
    return ClipEmbedder(
        network, tokenizer, _preprocessing(folder, pixels), device=device, rows_per_forward=rows_per_forward
    )


def forward_flops(folder: Path, architecture: str | None = None) -> float:
    """Operations of embedding one image and one text; 0 for towers that are not plain transformers."""
    config = require("open_clip", "clip").get_model_config(architecture) if architecture else _model_config(folder)
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


def _model_config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no {CONFIG_FILE}: not a folder of open_clip; name the architecture of its weights"
        )
    config = read_json(folder / CONFIG_FILE).get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise ValueError(f"{folder / CONFIG_FILE}: no model_cfg with embed_dim, vision_cfg and text_cfg")
    return config


def _known_architecture(open_clip: Any, name: str) -> str:
    known = open_clip.list_models()
    if name not in known:
        raise ValueError(f"unknown architecture {name!r} of open_clip{did_you_mean(name, known)}")
    return name


def _tag(open_clip: Any, architecture: str | None, published_as: str | None) -> dict[str, Any]:
    """What open_clip knows about published weights."""
    if architecture is None or published_as is None:
        return {}
    known = open_clip.list_pretrained_tags_by_model(architecture)
    if published_as not in known:
        hint = did_you_mean(published_as, known)
        raise ValueError(f"open_clip knows no {published_as!r} weights of {architecture}{hint} ({', '.join(known)})")
    return open_clip.get_pretrained_cfg(architecture, published_as)


def _preprocessing(folder: Path, config: Mapping[str, Any]) -> Preprocessing:
    size = config["size"]
    sizes = set(size) if isinstance(size, list | tuple) else {size}
    if len(sizes) != 1 or config["resize_mode"] not in {"shortest", "squash"}:
        raise ValueError(f"{folder}: images of size {size}, resize_mode {config['resize_mode']!r} are not supported")
    return Preprocessing(
        sizes.pop(), tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["resize_mode"]
    )
