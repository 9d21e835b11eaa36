"""Where models of transformers that see and speak keep their layers: names of tensors, keys of config.json. No torch.

Names are those of public files, of older and newer versions of transformers; sizes stand in groups of config.json, in
files of Qwen's older versions those of the language model on top.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

PER_LAYER = ("layer_types",)  # lists of config.json with one entry a layer
BLOCK_INDEXES = ("fullatt_block_indexes",)  # lists of config.json of numbers of layers


class Stack(NamedTuple):
    """Layers on top of each other: how names of tensors tell them, and what config.json calls their number."""

    names: re.Pattern[str]  # of what stands in front of a layer's number
    group: str  # of config.json
    counts: tuple[str, ...]  # keys in it; a language model of two halves has two


class Family(NamedTuple):
    """What can be left out of a model: layers of `text` and `vision`; `query_tokens`: those of a Q-Former."""

    text: Stack
    vision: Stack
    query_tokens: bool = False
    fixed_tile: bool = False  # images of one size, with an embedding for every place


_LLM = re.compile(r"(?:language_model\.)?model\.(?:language_model\.)?(?:model\.)?layers\.")
_QWEN_VISION = re.compile(r"(?:model\.)?visual\.blocks\.")
_TOWER = re.compile(r"(?:model\.)?vision_tower\.(?:vision_model\.)?encoder\.layers\.")
_TEXT = Stack(_LLM, "text_config", ("num_hidden_layers",))
_BLIP_TEXT = Stack(
    re.compile(r"(?:model\.)?language_model\.(?:model\.layers|layers|encoder\.block|decoder\.block)\."),
    "text_config",
    ("num_hidden_layers", "num_layers", "num_decoder_layers"),
)
_BLIP_VISION = Stack(
    re.compile(r"(?:model\.)?vision_model\.encoder\.layers\."), "vision_config", ("num_hidden_layers",)
)
FAMILIES: Mapping[str, Family] = {
    "qwen2_vl": Family(_TEXT, Stack(_QWEN_VISION, "vision_config", ("depth",))),
    "qwen2_5_vl": Family(_TEXT, Stack(_QWEN_VISION, "vision_config", ("depth",))),
    "llava_onevision": Family(_TEXT, Stack(_TOWER, "vision_config", ("num_hidden_layers",)), fixed_tile=True),
    "instructblip": Family(_BLIP_TEXT, _BLIP_VISION, query_tokens=True, fixed_tile=True),
}


def group_of(config: Mapping[str, Any], stack: Stack) -> Mapping[str, Any]:
    """The part of config.json that has the sizes of a stack."""
    group = config.get(stack.group)
    return group if isinstance(group, Mapping) and any(key in group for key in stack.counts) else config


def num_layers(config: Mapping[str, Any], stack: Stack) -> int:
    """Layers of a stack; ValueError where config.json does not say, or the halves of a model differ."""
    group = group_of(config, stack)
    counts = {group[key] for key in stack.counts if isinstance(group.get(key), int)}
    if len(counts) != 1:
        keys = " or ".join(f"{stack.group}.{key}" for key in stack.counts)
        raise ValueError(f"config.json: expected one number of layers in {keys}, found {sorted(counts) or 'none'}")
    return int(counts.pop())


def layer_of(name: str, stack: Stack) -> tuple[str, int, str] | None:
    """A tensor's name -> what stands before the number of its layer, the number, what stands behind; None: no layer."""
    if (first := stack.names.match(name)) is None:
        return None
    number, dot, behind = name[first.end() :].partition(".")
    return (first[0], int(number), dot + behind) if number.isdigit() else None
