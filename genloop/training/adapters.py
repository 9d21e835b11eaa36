"""Low-rank adapters (Hu et al. 2022) for any model, by peft: y = W x + (alpha / rank) B A x, only A and B are trained.

A checkpoint of a training run holds trained weights alone, so of an adapted model the adapters: the weights beside them
stay where they were loaded from. B starts at zero, so a fresh adapter changes nothing.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from genloop.checkpoint import save_folder
from genloop.registry import require
from genloop.training.settings import LoraSettings

ADAPTER_FILE = "adapter_model.safetensors"  # the names that peft reads
_PREFIX = "base_model."


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return ".lora_A." in name or ".lora_B." in name


def add_adapters(model: nn.Module, settings: LoraSettings, *, seed: int, within: str = "") -> Any:
    """Put adapters beside the linear layers whose names begin with `within`, in place -> what the others here take.

    All weights but the adapters' are frozen; those are float32 and drawn from `seed`. ValueError for unknown targets.
    """
    peft = require("peft", "train")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=settings.layers_of(name for name in linear if name.startswith(within)),
        lora_dropout=settings.dropout,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):  # peft draws from the CPU's global generator
        adapted = peft.LoraModel(model, config, "default")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        if is_adapter(name):
            parameter.data = parameter.data.float()
        if ".lora_A." in name:
            drawn = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
            parameter.data.copy_(drawn)
    return adapted


def merge_adapters(adapted: Any) -> Any:
    """Add the adapters to the weights beside them, in place -> the plain model."""
    return adapted.merge_and_unload()


def save_adapters(adapted: Any, folder: Path) -> None:
    """Write the adapters as peft publishes them: their weights, and rank, alpha and layers in adapter_config.json."""
    peft = require("peft", "train")
    config = adapted.peft_config["default"].to_dict() | {"inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    tensors = {_PREFIX + name: value for name, value in peft.get_peft_model_state_dict(adapted).items()}
    save_folder(folder, tensors, {"adapter_config.json": config}, weights=ADAPTER_FILE)
