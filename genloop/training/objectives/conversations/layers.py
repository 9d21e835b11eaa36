"""Which linear layers of a chat model get adapters: of a part of it all, some by name, or `attention`."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from genloop.training.settings import LoraSettings

LoraPart = Literal["language", "qformer", "vision", "all"]
ATTENTION = "attention"  # a target: the queries and values of the part, whatever the family calls them
_LAYERS = {  # how names begin; the head of a language model is no layer
    "language": re.compile(
        r"^(model\.(?:language_model\.)?layers\.|language_model\.(?:model\.layers|encoder\.block|decoder\.block)\.)\d+\."
    ),
    "qformer": re.compile(r"^(qformer\.encoder\.layer\.)\d+\."),
    "vision": re.compile(
        r"^(model\.visual\.blocks\.|model\.vision_tower\.(?:\w+\.)*layers\.|vision_model\.encoder\.layers\.)\d+\."
    ),
}
_NAMES = {
    "language": ("q_proj", "v_proj", "q", "v"),
    "qformer": ("query", "value"),
    "vision": ("qkv", "q_proj", "v_proj"),
}


def layers_of(model: nn.Module, part: LoraPart) -> tuple[str, ...]:
    """How the names of a part's layers begin; ValueError for a part that the model does not have."""
    patterns = list(_LAYERS.values()) if part == "all" else [_LAYERS[part]]
    matches = [pattern.match(f"{name}.") for name, _ in model.named_modules() for pattern in patterns]
    found = tuple(dict.fromkeys(match[1] for match in matches if match))
    if not found:
        raise ValueError(f"lora_part: a {type(model).__name__} has no part {part!r}; use language, vision or all")
    return found


def with_attention(settings: LoraSettings, model: nn.Module, within: Sequence[str]) -> LoraSettings:
    """`attention` among the targets -> the names that it stands for in the layers whose names begin as `within`."""
    if ATTENTION not in settings.targets:
        return settings
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names: dict[str, Any] = {}
    for part, pattern in _LAYERS.items():
        inside = [name for name in linear if name.startswith(tuple(within)) and pattern.match(name)]
        names |= {end: None for end in _NAMES[part] if any(name.endswith(f".{end}") for name in inside)}
    others = [target for target in settings.targets if target != ATTENTION]
    return settings.model_copy(update={"targets": tuple(dict.fromkeys([*others, *names]))})
