"""A tiny CLIP in open_clip's layout, with random weights: for tests. Its tensors are named as open_clip names them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MODEL_CONFIG: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}


def shapes(config: dict[str, Any] = MODEL_CONFIG) -> dict[str, tuple[int, ...]]:
    """{key: shape} of every tensor."""
    image, text, size = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    width, patch = image["width"], image["patch_size"]
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": ((image["image_size"] // patch) ** 2 + 1, width),
        "visual.proj": (width, size),
        "visual.conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (text["context_length"], text["width"]),
        "text_projection": (text["width"], size),
        "token_embedding.weight": (text["vocab_size"], text["width"]),
    }
    norms = [("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text["width"])]
    for tower, side in (("visual.transformer", image), ("transformer", text)):
        for layer in range(side["layers"]):
            found |= _block(f"{tower}.resblocks.{layer}", side["width"])
            norms += [(f"{tower}.resblocks.{layer}.ln_{place}", side["width"]) for place in (1, 2)]
    return found | {f"{name}.{part}": (wide,) for name, wide in norms for part in ("weight", "bias")}


def _block(name: str, width: int) -> dict[str, tuple[int, ...]]:
    linear = {"attn.out_proj": (width, width), "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width)}
    found: dict[str, tuple[int, ...]] = {f"{name}.{key}.weight": shape for key, shape in linear.items()}
    found |= {f"{name}.{key}.bias": (shape[0],) for key, shape in linear.items()}
    return found | {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}


def random_tensors(seed: int) -> dict[str, Tensor]:
    """Every tensor, in float32."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes().items()}


def write_clip_folder(folder: Path, seed: int = 0, **model_cfg: Any) -> Path:
    """open_clip_config.json and open_clip_model.safetensors -> the folder"""
    folder.mkdir(parents=True)
    config = {"model_cfg": {**MODEL_CONFIG, **model_cfg}, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(random_tensors(seed), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder
