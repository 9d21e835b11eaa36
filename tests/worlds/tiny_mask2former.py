"""A tiny Mask2Former with random weights: as a state dict of mmdet, 2.x or 3.x, and as a folder of transformers."""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ckpts.convert.mask2former import convert
from ckpts.convert.mask2former_names import source_shapes
from genloop.models.mask2former.config import HeadDims, Mask2FormerConfig, SwinDims, mask2former_manifest
from genloop.models.mask2former.mmdet_names import BUFFER

SCALE = (160, 96)  # long and short side that images have to fit
CLASSES = tuple(f"LABEL_{index}" for index in range(80))
TINY = Mask2FormerConfig(
    SwinDims(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4)),
    HeadDims(
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_layers=1,
        encoder_feedforward_dim=24,
        decoder_layers=3,
        dim_feedforward=40,
        num_attention_heads=4,
        num_queries=9,
    ),
    CLASSES,
)


def mmdet_state(config: Mask2FormerConfig = TINY, *, seed: int = 1, version: str = "3.x") -> dict[str, Tensor]:
    """Every tensor of the file that mmdet would write, its integer buffers too. Objects get clear scores and masks."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in source_shapes(mask2former_manifest(config)).items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values *= (3.0 if "cls_embed" in name else 1.2) / math.prod(shape[1:]) ** 0.5
        elif re.search(r"(norm|gn)\w*\.(\d+\.)?weight$", name):
            values = 1 + 0.1 * values
        else:
            values *= 0.1
        state[name] = values
        if name.endswith("relative_position_bias_table"):
            side = config.swin.window_size**2
            state[name.replace(".relative_position_bias_table", BUFFER)] = torch.zeros(side, side, dtype=torch.int64)
    return state if version == "3.x" else {old_name(name): tensor for name, tensor in state.items()}


def old_name(name: str) -> str:
    """A name of mmdet 3.x -> that of 2.x."""
    name = re.sub(r"(pixel_decoder\.encoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.0.", name)
    name = re.sub(r"(transformer_decoder\.layers\.\d+)\.cross_attn\.", r"\1.attentions.0.", name)
    name = re.sub(r"(transformer_decoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.1.", name)
    return re.sub(r"((?:pixel_decoder\.encoder|transformer_decoder)\.layers\.\d+)\.ffn\.", r"\1.ffns.0.", name)


def mmdet_file(file: Path, *, version: str = "3.x", **options: Any) -> Path:
    """A checkpoint as mmdet saves it."""
    state = mmdet_state(version=version, **options)
    torch.save({"meta": {"epoch": 0, "iter": 368750}, "state_dict": state}, file)
    return file


def mask2former_folder(folder: Path, *, version: str = "3.x", **options: Any) -> Path:
    """The same, converted; images have to fit SCALE."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = mmdet_file(folder.with_suffix(".pth"), version=version, **options)
    return convert(file, folder, scale=SCALE).folder
