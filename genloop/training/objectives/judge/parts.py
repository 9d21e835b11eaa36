"""The parts of a LLaVA-OneVision and how each is trained: its own learning rate, frozen, or with low-rank adapters."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from genloop.models.llava.model import Llava
from genloop.registry import require
from genloop.training.settings import LoraSettings

_PARTS = {
    "vision": re.compile(r"^model\.vision_tower\."),
    "projector": re.compile(r"^model\.(multi_modal_projector\.|image_newline$)"),
}
_ADAPTER = re.compile(r"\.lora_[AB]\.")


def part_of(name: str) -> str:
    """vision, projector or language: the part that a parameter belongs to."""
    return next((part for part, pattern in _PARTS.items() if pattern.match(name)), "language")


def share_of(rates: Mapping[str, float | None], lr: float) -> Callable[[str], float]:
    """Learning rates of the parts (None: `lr`) -> what gives a parameter's share of `lr` by its name."""
    shares = {part: 1.0 if rate is None else rate / lr for part, rate in rates.items()}
    return lambda name: shares.get(part_of(name), 1.0)


def freeze(model: Llava, share: Callable[[str], float]) -> None:
    """Parameters with a share of 0 want no gradient any more; the others are held in float32.

    In bfloat16 a weight would not notice steps below a 256th of it.
    """
    for name, parameter in model.named_parameters():
        if share(name) == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def add_lora(model: Llava, settings: LoraSettings, *, seed: int) -> Any:
    """Put adapters into the language model, in place -> what `merge_lora` takes; its own weights are frozen.

    An adapter starts as nothing: B is 0, A is drawn from `seed`. Vision tower and projector are trained as before.
    """
    peft = require("peft", "train")
    targets = "|".join(map(re.escape, settings.targets))
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=rf"model\.language_model\.layers\..*\.({targets})",
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng():  # peft draws from the global generator
        adapted = peft.LoraModel(model, config, "default")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        is_adapter = _ADAPTER.search(name) is not None
        parameter.requires_grad_(is_adapter or part_of(name) != "language")
        if is_adapter and ".lora_A." in name:
            drawn = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
            parameter.data.copy_(drawn)
    return adapted


def merge_lora(adapted: Any) -> Llava:
    """Add the adapters to the weights they stand beside -> the plain model."""
    return adapted.merge_and_unload()


def save_memory(model: Llava) -> None:
    """Compute activations again in the backward pass instead of keeping them."""
    kwargs = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # since transformers 5.23
        model.activation_checkpointing_enable(kwargs)
    else:
        model.gradient_checkpointing_enable(kwargs)
