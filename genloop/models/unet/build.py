"""UNets from their config.json: with weights keyed by a seed, or on the meta device without any."""

from collections.abc import Mapping
from typing import Any

import torch

from genloop.models.diffusion.fresh import keyed
from genloop.models.unet.config import STOCK, UNETS
from genloop.registry import load


def fresh_unet(config: Mapping[str, Any], *, seed: int) -> Any:
    """Drawn weights; the global random state stays as it is."""
    return keyed(seed, lambda: unet_class(config).from_config(dict(config)))


def empty_unet(config: Mapping[str, Any]) -> Any:
    """On the meta device."""
    with torch.device("meta"):
        return unet_class(config).from_config(dict(config))


def unet_class(config: Mapping[str, Any]) -> Any:
    """The class that a config.json names, one of `UNETS`; without a name diffusers' own."""
    return load(UNETS[config.get("_class_name", STOCK)])
