"""One LoRA for everybody: read from any spelling, written in diffusers' layout and in kohya's.

    FOLDER/pytorch_lora_weights.safetensors   for diffusers and this suite, with peft's settings, so that alpha survives
    FOLDER/kohya.safetensors                  for web UIs: lora_unet_*, lora_te_* (SDXL: lora_te1_*, lora_te2_*), the
                                              alpha of each layer, hashes; ss_* and modelspec.* as in the first
    FOLDER/manifest.json                      sha256 of both

The change of a layer is (alpha / rank) up @ down; tensors keep their values and types to the last bit, alpha is a
float32. r = rank.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genloop.checkpoint import check_finite, save_folder
from genloop.models.diffusion.config import COMPONENTS, UNET, DiffusionFolder
from genloop.models.diffusion.lora import LoraPlace, match_lora
from genloop.models.diffusion.lora_metadata import (
    ADAPTER_KEY,
    adapter_settings,
    kohya_metadata,
    pack_settings,
    without_hashes,
)
from genloop.registry import require
from genloop.rundir import json_line
from genloop.safetensors_file import safetensors_parts

DIFFUSERS_FILE, KOHYA_FILE = "pytorch_lora_weights.safetensors", "kohya.safetensors"
_FORMAT = {"format": "pt"}
_TEXT = "text_model."  # in front of a CLIP's layers in all published files; transformers 5 has left it out


class LoraLayer(NamedTuple):
    """The adapter of one layer: down (r, in, ...), up (out, r, ...)."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def delta(self) -> Tensor:
        """What is added to the layer's weight, as a matrix (out, in * kernel)."""
        return self.alpha / len(self.down) * (self.up.flatten(1) @ self.down.flatten(1))


Lora = Mapping[str, Mapping[str, LoraLayer]]  # {component: {layer, as the base calls it: adapter}}


def read_lora(file: Path, base: DiffusionFolder, key: str = "generator.options.lora") -> Lora:
    """Every adapter of a file, in any spelling; refuses what `check_lora` does, and values that are no numbers."""
    places = match_lora(file, base, COMPONENTS[base.pipeline], key)
    tensors = require("safetensors.torch").load_file(file)
    check_finite(tensors, file)
    settings = adapter_settings(file)
    lora: dict[str, dict[str, LoraLayer]] = {}
    for place in places:
        alpha = _alpha(place, tensors, settings.get(place.part, {}))
        lora.setdefault(place.part, {})[place.layer] = LoraLayer(tensors[place.down], tensors[place.up], alpha)
    return lora


def write_lora(
    folder: Path,
    lora: Lora,
    base: DiffusionFolder,
    *,
    title: str,
    training: Mapping[str, Any] | None = None,
    spec: Mapping[str, str] | None = None,
) -> None:
    """Write FOLDER with both files, all or nothing; an older one of that name is replaced.

    training: what is known of it, by kohya's names without ss_ (seed, steps, learning_rate, ...); spec: author,
    license, trigger_phrase, date, ... of modelspec.
    """
    layers = [layer for adapted in lora.values() for layer in adapted.values()]
    assert layers, "nothing is adapted"
    kohya = kohya_tensors(lora, base)
    metadata = kohya_metadata(
        kohya,
        base,
        [len(layer.down) for layer in layers],
        [_single(layer.alpha) for layer in layers],
        title=title,
        training=training or {},
        spec=spec or {},
    )
    save_folder(
        folder,
        diffusers_tensors(lora),
        {KOHYA_FILE: b"".join(safetensors_parts(kohya, _FORMAT | metadata))},
        weights=DIFFUSERS_FILE,
        metadata=_FORMAT
        | without_hashes(metadata)
        | {ADAPTER_KEY: json_line(dict(sorted(diffusers_settings(lora).items()))).decode().strip()},
    )


def diffusers_tensors(lora: Lora) -> dict[str, Tensor]:
    """Keys as diffusers publishes them: unet.X.lora.down.weight, text_encoder.X.lora_linear_layer.down.weight."""
    tensors: dict[str, Tensor] = {}
    for part, layers in lora.items():
        middle = "lora" if part == UNET else "lora_linear_layer"
        for name, layer in layers.items():
            stem = f"{part}.{_published(part, name)}.{middle}"
            tensors |= {f"{stem}.down.weight": layer.down, f"{stem}.up.weight": layer.up}
    return tensors


def diffusers_settings(lora: Lora) -> dict[str, Any]:
    """peft's settings of each component, the ranks and alphas of all layers among them."""
    settings: dict[str, Any] = {}
    for part, layers in lora.items():
        named = {name.removeprefix(_TEXT): layer for name, layer in layers.items()}
        ranks = {name: len(layer.down) for name, layer in named.items()}
        settings |= pack_settings(part, ranks, {name: _single(layer.alpha) for name, layer in named.items()})
    return settings


def kohya_tensors(lora: Lora, base: DiffusionFolder) -> dict[str, Tensor]:
    """Keys of sd-scripts: PREFIX_LAYER with dots as underscores, .lora_down.weight, .lora_up.weight, .alpha."""
    is_xl = "text_encoder_2" in COMPONENTS[base.pipeline]
    prefixes = {
        UNET: "lora_unet",
        "text_encoder": "lora_te1" if is_xl else "lora_te",
        "text_encoder_2": "lora_te2",
    }
    tensors: dict[str, Tensor] = {}
    for part, layers in lora.items():
        for name, layer in layers.items():
            stem = f"{prefixes[part]}_{_published(part, name).replace('.', '_')}"
            alpha = torch.tensor(layer.alpha, dtype=torch.float32)
            tensors |= {
                f"{stem}.lora_down.weight": layer.down,
                f"{stem}.lora_up.weight": layer.up,
                f"{stem}.alpha": alpha,
            }
    return tensors


def adapted_layers(adapted: Any, within: str = "") -> dict[str, LoraLayer]:
    """The adapters of a module that peft has adapted, by the names of its layers after `within`."""
    layers = {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A and name.startswith(within):
            down, up = (getattr(module, side)["default"].weight.detach().cpu() for side in ("lora_A", "lora_B"))
            layers[name.removeprefix(within)] = LoraLayer(down.clone(), up.clone(), float(module.lora_alpha["default"]))
    return layers


def _published(part: str, layer: str) -> str:
    is_inside = part == UNET or layer.startswith((_TEXT, "text_projection"))
    return layer if is_inside else _TEXT + layer


def _single(alpha: float) -> float:
    """In single precision, as kohya's files hold it."""
    return float(torch.tensor(alpha, dtype=torch.float32))


def _alpha(place: LoraPlace, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> float:
    """Of the layer's own tensor, else of the file's settings, else the rank, as programs do that know no alpha."""
    rank = len(tensors[place.down])
    if place.alpha is not None:
        return float(tensors[place.alpha])
    if not settings:
        return float(rank)
    patterns: Mapping[str, float] = settings.get("alpha_pattern") or {}
    match = require("peft.utils.other", "diffusion").get_pattern_key(list(patterns), place.layer)
    alpha = float(patterns.get(match, settings["lora_alpha"]))
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha
