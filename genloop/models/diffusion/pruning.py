"""A UNet without some of its layers, the others' weights copied, as in BK-SDM (Kim et al. 2023).

Every block keeps the layers that are named: a down block `down`, an up block `up`, one more (its layers also read what
the down blocks have passed over). Layer 0 and the last one of an up block have widths of their own, so they stay. A
layer is a residual block with the attention behind it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from genloop.models.unet.config import STOCK
from genloop.registry import require

_LAYER = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions)\.(\d+)(.*)")


def kept_layers(
    unet: Mapping[str, Any], down: Sequence[int], up: Sequence[int], *, mid: bool, key: str = "keep"
) -> dict[str, tuple[int, ...]]:
    """{"down_blocks": ..., "up_blocks": ...} that a UNet of this config.json keeps; empty lists: all.

    ValueError, which begins with `key`, for layers that are not there or cannot be left out.
    """
    if (kind := unet.get("_class_name", STOCK)) != STOCK:
        raise ValueError(f"{key}: layers are left out of a {STOCK}, the base has a {kind}")
    number = unet.get("layers_per_block", 2)
    if not isinstance(number, int):
        raise ValueError(f"{key}: the UNet has layers_per_block={number}, blocks of one size are needed")
    if not mid and unet.get("mid_block_type", "UNetMidBlock2DCrossAttn") is None:
        raise ValueError(f"{key}.mid: the UNet has no middle block")
    found = {}
    for name, kept, there in (("down", down, number), ("up", up, number + 1)):
        kept = tuple(kept) or tuple(range(there))
        if list(kept) != sorted(set(kept)) or kept[-1] >= there:
            raise ValueError(f"{key}.{name}: expected layers from 0 to {there - 1} in order, found {list(kept)}")
        if kept[0] != 0 or (name == "up" and kept[-1] != there - 1):
            last = f" and {there - 1}" if name == "up" else ""
            raise ValueError(f"{key}.{name}: layer 0{last} cannot be left out, found {list(kept)}")
        found[f"{name}_blocks"] = kept
    if len(found["up_blocks"]) != len(found["down_blocks"]) + 1:
        numbers = {side: len(layers) for side, layers in found.items()}
        raise ValueError(
            f"{key}.up: {numbers['up_blocks']} layers, expected one more than the {numbers['down_blocks']} of down"
        )
    return found


def source_name(name: str, kept: Mapping[str, Sequence[int]]) -> str:
    """The name of a layer or tensor of a pruned UNet -> its name in the whole one."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    side, block, kind, layer, rest = match.groups()
    return f"{side}.{block}.{kind}.{kept[side][int(layer)]}{rest}"


def prune_unet(unet: Any, kept: Mapping[str, Sequence[int]], *, mid: bool) -> Any:
    """A UNet of diffusers -> a smaller one, every weight of which is a copy; of the same type, on the same device."""
    config = {key: value for key, value in unet.config.items() if not key.startswith("_")}  # without diffusers' notes
    config["layers_per_block"] = len(kept["down_blocks"])
    if not mid:
        config["mid_block_type"] = None
    with torch.device("meta"):
        small = require("diffusers", "diffusion").UNet2DConditionModel.from_config(config)
    tensors = unet.state_dict()
    chosen = {name: tensors[source_name(name, kept)].clone() for name in small.state_dict()}
    small.load_state_dict(chosen, assign=True)
    return small.train(unet.training)
