"""Tensors and config.json of a smaller form: layers left out, places of image patches interpolated, queries cut.

D = hidden size, G = patches a side, g = of a smaller image, Q = query tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genloop.models.smaller.families import BLOCK_INDEXES, PER_LAYER, Stack, group_of, layer_of
from genloop.models.smaller.settings import ReductionPlan

_PLACES = ("vision_model.embeddings.position_embedding.weight", "vision_tower.embeddings.position_embedding.weight")
_PLACES_WITH_CLASS = "vision_model.embeddings.position_embedding"  # (1, 1 + G * G, D), the first of the class token
_QUERIES = "query_tokens"  # (1, Q, D)


def reduced_config(config: Mapping[str, Any], plan: ReductionPlan) -> dict[str, Any]:
    """config.json of the smaller form."""
    found = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for stack, kept in ((plan.family.text, plan.text), (plan.family.vision, plan.vision)):
        _renumber(group_of(found, stack), stack, kept)
    side = plan.reduction.image_size
    if side is not None and plan.family.fixed_tile:
        before, found["vision_config"]["image_size"] = found["vision_config"]["image_size"], side
        if pairs := found.get("image_grid_pinpoints"):
            found["image_grid_pinpoints"] = [[edge // before * side for edge in pair] for pair in pairs]
    if plan.reduction.query_tokens is not None:
        found["num_query_tokens"] = plan.reduction.query_tokens
    return found


def reduced_tensors(tensors: Mapping[str, Tensor], plan: ReductionPlan, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that stay, under their new names; `config` is the one before."""
    stacks = [(plan.family.text, plan.text), (plan.family.vision, plan.vision)]
    found = {}
    for name, tensor in tensors.items():
        new = _renamed(name, stacks)
        if new is not None:
            found[new] = _cut(name, tensor, plan, config)
    return found


def _renumber(group: Any, stack: Stack, kept: tuple[int, ...]) -> None:
    for key in stack.counts:
        if isinstance(group.get(key), int):
            group[key] = len(kept)
    for key in PER_LAYER:
        if isinstance(values := group.get(key), list):
            group[key] = [values[number] for number in kept]
    for key in BLOCK_INDEXES:
        if isinstance(values := group.get(key), list):
            group[key] = [place for place, number in enumerate(kept) if number in values]


def _renamed(name: str, stacks: list[tuple[Stack, tuple[int, ...]]]) -> str | None:
    """None: the tensor's layer is left out."""
    for stack, kept in stacks:
        if (found := layer_of(name, stack)) is not None:
            before, number, behind = found
            return f"{before}{kept.index(number)}{behind}" if number in kept else None
    return name


def _cut(name: str, tensor: Tensor, plan: ReductionPlan, config: Mapping[str, Any]) -> Tensor:
    side, tokens = plan.reduction.image_size, plan.reduction.query_tokens
    if tokens is not None and name.rpartition(".")[2] == _QUERIES:
        return tensor[:, :tokens].clone()
    if side is None or not plan.family.fixed_tile:
        return tensor
    grid = side // config["vision_config"]["patch_size"]
    if name.endswith(_PLACES_WITH_CLASS):
        return torch.cat([tensor[:, :1], _interpolated(tensor[0, 1:], grid)[None]], dim=1)
    return _interpolated(tensor, grid) if name.endswith(_PLACES) else tensor


def _interpolated(places: Tensor, grid: int) -> Tensor:
    """(G * G, D) -> (g * g, D), bicubic, as towers are given other sizes."""
    before = round(len(places) ** 0.5)
    image = places.float().unflatten(0, (before, before)).permute(2, 0, 1)[None]  # (1, D, G, G)
    resized = torch.nn.functional.interpolate(image, size=(grid, grid), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).flatten(0, 1).to(places.dtype).contiguous()
