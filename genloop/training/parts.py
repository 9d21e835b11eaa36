"""The parts of a model that sees and speaks, and how each is trained: its own learning rate, frozen, with adapters."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from genloop.training.adapters import is_adapter

_PARTS = {
    "projector": re.compile(
        r"^(model\.(multi_modal_projector\.|image_newline$|visual\.merger\.)|language_projection\.)"
    ),
    "qformer": re.compile(r"^(qformer\.|query_tokens$)"),
    "vision": re.compile(r"^(model\.(vision_tower|visual)|vision_model)\."),
}


def part_of(name: str) -> str:
    """vision, qformer, projector or language: the part that a parameter belongs to."""
    return next((part for part, pattern in _PARTS.items() if pattern.match(name)), "language")


def lr_scale_of(rates: Mapping[str, float | None], lr: float) -> Callable[[str], float]:
    """Learning rates of the parts (None: `lr`) -> a function from a parameter's name to its factor of `lr`."""
    scales = {part: 1.0 if rate is None else rate / lr for part, rate in rates.items()}
    return lambda name: 1.0 if is_adapter(name) else scales.get(part_of(name), 1.0)


def choose_trained(model: Any, lr_scale_of: Callable[[str], float], *, adapted: bool) -> None:
    """Freeze parameters with a learning rate of 0, and of an adapted language model all but the adapters."""
    for name, parameter in model.named_parameters():
        is_beside = adapted and part_of(name) == "language" and not is_adapter(name)
        parameter.requires_grad_(not is_beside and lr_scale_of(name) != 0)


def cast_parameters(model: Any, dtype: torch.dtype) -> None:
    """Give all parameters one dtype. Buffers stay: rotary frequencies in bfloat16 would turn far positions wrongly."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
