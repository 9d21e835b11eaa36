"""Objectives of train_student on the tiny Stable Diffusion, and images to reject."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genloop.config import load_config
from genloop.data.shards import Sample, Shards, write_shard
from genloop.distributed import World
from genloop.training.student.start import objective_of
from jobs import train_student
from tests.runs import ROOT

SHARDS, BASE = ROOT / "configs/data/shapes/shards", ROOT / "ckpts/tiny/sd"


def build(preset: str, out: Path, *words: str) -> Any:
    """The objective of a preset, its caches full."""
    file = ROOT / f"configs/train_student/{preset}.yaml"
    config = load_config(train_student.Config, file, [f"out={out}", *words])
    objective, _ = objective_of(config, train_student.check(config), World(0, 1, 0), "cpu")
    return objective


def disturb(objective: Any, size: float = 0.1) -> None:
    """Random values for what learns."""
    generator = torch.Generator().manual_seed(5)
    for parameter in objective.model.parameters():
        if parameter.requires_grad:
            parameter.data += size * torch.randn(parameter.shape, generator=generator)


def batch_of(objective: Any, step: int = 1) -> Any:
    plan = objective.plan(step)
    return objective.load(plan.items, plan)


def plain_unet() -> Any:
    """The base's UNet, loaded by diffusers alone."""
    from genloop.registry import require

    return require("diffusers").UNet2DConditionModel.from_pretrained(BASE / "unet").eval()


def write_inverted(folder: Path, *, left_out: int = 0, side: int | None = None) -> Path:
    """The tiny shards with inverted colours, without the last `left_out` samples, scaled to `side` pixels."""
    samples = list(Shards(SHARDS))
    changed = []
    for sample in samples[: len(samples) - left_out]:
        field = next(name for name in sample.fields if name in ("png", "jpg", "webp"))
        with Image.open(io.BytesIO(sample.fields[field])) as image:
            inverted = Image.fromarray(255 - np.asarray(image.convert("RGB")))
        stream = io.BytesIO()
        (inverted if side is None else inverted.resize((side, 2 * side))).save(stream, "PNG")
        changed.append(Sample(sample.key, {"png": stream.getvalue(), "txt": sample.fields["txt"]}))
    write_shard(folder / "00000.tar", changed)
    return folder
