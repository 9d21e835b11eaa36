"""Low-rank adapters (Hu et al. 2022) for any model, by peft: y = W x + (alpha / rank) B A x, only A and B are trained.

A checkpoint of a training run holds trained weights alone, so of an adapted model the adapters: the weights beside them
stay where they were loaded from. B starts at zero, so a fresh adapter changes nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genloop.checkpoint import read_header, save_folder
from genloop.reading import read_json_object, read_object_or_empty
from genloop.registry import require
from genloop.training.settings import LoraSettings

ADAPTER_FILE = "adapter_model.safetensors"  # the names that peft reads
_CONFIG_FILE = "adapter_config.json"
_BASE_FILE = "base.json"  # what the adapters stand beside
_PREFIX = "base_model."
_OTHER_KINDS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")  # of peft's adapters


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter, by its name."""
    return ".lora_A." in name or ".lora_B." in name


def add_adapters(model: nn.Module, settings: LoraSettings, *, seed: int, within: str | tuple[str, ...] = "") -> Any:
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


def save_adapters(adapted: Any, folder: Path, *, base: Mapping[str, str] | None = None) -> None:
    """Write the adapters as peft publishes them: their weights, and rank, alpha and layers in adapter_config.json.

    `base` tells what they stand beside: its name, and the digest that `check_adapters` compares.
    """
    peft = require("peft", "train")
    config = adapted.peft_config["default"].to_dict() | {"inference_mode": True}
    config |= {"base_model_name_or_path": base["name"]} if base else {}
    config["target_modules"] = sorted(config["target_modules"])
    tensors = {_PREFIX + name: value for name, value in peft.get_peft_model_state_dict(adapted).items()}
    files: dict[str, Any] = {_CONFIG_FILE: config} | ({_BASE_FILE: dict(base)} if base else {})
    save_folder(folder, tensors, files, weights=ADAPTER_FILE)


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Give the adapters of a model the weights of a folder that `check_adapters` has passed."""
    tensors = require("safetensors.torch").load_file(folder / ADAPTER_FILE)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.copy_(tensors[_published(name)])


def check_adapters(folder: Path, model: nn.Module, settings: LoraSettings, *, base: str) -> None:
    """Refuse a folder that is not of `settings`, or of another base than the one with the digest `base`.

    `model` has the adapters already and may lie on the meta device. ValueError in one line that names file and key.
    """
    config = read_json_object(folder / _CONFIG_FILE)
    for key, wanted in (("r", settings.rank), ("lora_alpha", settings.alpha)):
        if config.get(key) != wanted:
            raise ValueError(f"{folder / _CONFIG_FILE}: {key}={config.get(key)}, this config has {wanted}")
    if strange := next((key for key in _OTHER_KINDS if config.get(key)), None):
        raise ValueError(f"{folder / _CONFIG_FILE}: {strange}={config[strange]}, only plain LoRA can be gone on from")
    if (recorded := read_object_or_empty(folder / _BASE_FILE)) and recorded.get("sha256") != base:
        raise ValueError(f"{folder}: adapter of another base, {recorded.get('name')}; set `start` to that")
    own = {_published(name): tuple(p.shape) for name, p in model.named_parameters() if is_adapter(name)}
    found = read_header(folder / ADAPTER_FILE)
    if strangers := sorted(name for name in {**own, **found} if own.get(name) != found.get(name)):
        first = strangers[0]
        raise ValueError(
            f"{folder / ADAPTER_FILE}: adapter of another base or of other layers: {first} is "
            f"{list(found.get(first, ()))}, expected {list(own.get(first, ()))}"
        )


def _published(name: str) -> str:
    """A parameter's name in the model -> that of peft's files."""
    return f"{_PREFIX}model.{name.replace('.default.', '.')}"
