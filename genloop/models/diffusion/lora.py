"""LoRA files (Hu et al. 2022) for diffusion models: FILE:weight, checked against the base from headers. No torch.

Three spellings of keys are known: that of peft (`unet.X.lora_A.weight`), the older one of diffusers
(`unet.X.lora.down.weight`, `text_encoder.X.lora_linear_layer.down.weight`) and kohya's (`lora_unet_X.lora_down.weight`,
dots as underscores). Rank and in-features of the first factor, out-features of the second must be those of the layer.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from genloop.checkpoint import Shape, read_header
from genloop.models.diffusion.config import DiffusionFolder, component_shapes

_FACTOR = re.compile(r"\.(?:lora_A|lora_B|lora_down|lora_up|lora(?:_linear_layer)?\.(?:down|up))\.weight$")
_FIRST = re.compile(r"\.(?:lora_A|lora_down|lora(?:_linear_layer)?\.down)\.weight$")
_KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}
_OTHER_NAMES = re.compile(r"lora_unet_(input_blocks|middle_block|output_blocks)_")  # those of the original code


class LoraFile(NamedTuple):
    """One adapter and its weight."""

    file: Path
    weight: float


def parse_lora(text: str) -> LoraFile:
    """FILE:weight, or FILE for a weight of 1; ValueError for a weight that is no finite number."""
    name, colon, number = text.rpartition(":")
    if not colon:
        return LoraFile(Path(text), 1.0)
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not name or not math.isfinite(weight) or abs(weight) > 100:
        raise ValueError(f"{text!r} is not FILE:weight with a weight from -100 to 100")
    return LoraFile(Path(name), weight)


def check_lora(file: Path, base: DiffusionFolder, components: Iterable[str]) -> None:
    """Refuse a file with a layer that the base does not have, or has in another size."""
    if not file.is_file():
        raise FileNotFoundError(f"generator.options.lora: there is no file {file}")
    layers = {part: _layers(component_shapes(base.folder, part)) for part in components}
    spelled = {part: {name.replace(".", "_"): name for name in known} for part, known in layers.items()}
    found = 0
    for key, shape in read_header(file).items():
        if key.endswith(".alpha"):
            continue
        if not _FACTOR.search(key):
            raise ValueError(f"generator.options.lora: {file}: {key!r} is no key of a LoRA")
        found += 1
        if _OTHER_NAMES.match(key):
            continue  # diffusers renames them when it loads
        place = _place(key, layers, spelled)
        if place is None:
            raise ValueError(f"generator.options.lora: {file}: {base.folder} has no layer for {key!r}")
        part, name = place
        wanted, side = layers[part][name], 1 if _FIRST.search(key) else 0
        if len(shape) < 2 or shape[side] != wanted[side]:
            raise ValueError(
                f"generator.options.lora: {file}: {key!r} has the shape {list(shape)}, its layer in {base.folder} "
                f"{list(wanted)}: it was trained on another base"
            )
    if not found:
        raise ValueError(f"generator.options.lora: {file} holds no LoRA")


def _layers(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """{layer: shape of its weight}"""
    return {key.removesuffix(".weight"): shape for key, shape in shapes.items() if key.endswith(".weight")}


def _place(
    key: str, layers: Mapping[str, Mapping[str, Shape]], spelled: Mapping[str, Mapping[str, str]]
) -> tuple[str, str] | None:
    """Component and layer of a key; None when there is none."""
    name = _FACTOR.sub("", key)
    for prefix, part in _KOHYA.items():
        if name.startswith(prefix):
            known = spelled.get(part, {}).get(name.removeprefix(prefix))
            return None if known is None else (part, known)
    part, _, name = name.partition(".")
    known_layers = layers.get(part, {})
    for candidate in (name, f"text_model.{name}", name.removeprefix("text_model.")):
        if candidate in known_layers:
            return part, candidate
    return None
