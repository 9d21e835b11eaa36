"""LoRA files (Hu et al. 2022) for diffusion models: FILE:weight, checked against the base from headers. No torch.

Three spellings of keys are known: that of peft (`unet.X.lora_A.weight`), the older one of diffusers
(`unet.X.lora.down.weight`, `text_encoder.X.lora_linear_layer.down.weight`) and kohya's (`lora_unet_X.lora_down.weight`,
dots as underscores; blocks by diffusers' names or by those of the original code). Every key of a file has to belong to
a layer of the base, every layer has two factors of one rank, and their features are those of the layer.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from genloop.checkpoint import Shape, read_header
from genloop.config import refusal
from genloop.models.diffusion.config import UNET, DiffusionFolder, component_shapes
from genloop.models.diffusion.lora_metadata import adapter_settings, check_base
from genloop.models.diffusion.unet_names import original_name

_SPELLINGS = {
    "down": re.compile(r"\.(?:lora_A|lora_down|lora(?:_linear_layer)?\.down)\.weight$"),
    "up": re.compile(r"\.(?:lora_B|lora_up|lora(?:_linear_layer)?\.up)\.weight$"),
    "alpha": re.compile(r"\.alpha$"),
}
_KOHYA = {"lora_unet_": "unet", "lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"}


class LoraPlace(NamedTuple):
    """Where a file holds the adapter of one layer: its keys, and the shape of the layer's weight."""

    part: str  # unet, text_encoder, text_encoder_2
    layer: str  # as the base calls it
    down: str
    up: str
    alpha: str | None
    shape: Shape


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


def checked_loras(texts: tuple[str, ...]) -> tuple[str, ...]:
    """For validators of configs: the same, refused unless each is FILE:weight."""
    for text in texts:
        try:
            parse_lora(text)
        except ValueError as error:
            raise refusal(f": {error}") from None
    return texts


def check_lora(
    file: Path, base: DiffusionFolder, components: Iterable[str], key: str = "generator.options.lora"
) -> int:
    """Refuse a file of which not every key belongs to the base -> how many layers it adapts.

    FileNotFoundError or ValueError, one line that begins with the config's `key`.
    """
    return len(match_lora(file, base, components, key))


def match_lora(file: Path, base: DiffusionFolder, components: Iterable[str], key: str) -> list[LoraPlace]:
    """The adapters of a file with the layers they belong to, sorted; refuses what `check_lora` does."""
    if not file.is_file():
        raise FileNotFoundError(f"{key}: there is no file {file}")
    layers = {part: _layers(component_shapes(base.folder, part)) for part in components}
    spelled = {part: _spelled(part, known, base) for part, known in layers.items()}
    header = read_header(file)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in header:
        role = next((role for role, spelling in _SPELLINGS.items() if spelling.search(name)), None)
        if role is None:
            raise ValueError(f"{key}: {file}: {name!r} is no key of a LoRA")
        place = _place(_SPELLINGS[role].sub("", name), layers, spelled)
        if place is None:
            raise ValueError(f"{key}: {file}: {base.folder} has no layer for {name!r}; 100% of the keys have to match")
        if role in found.setdefault(place, {}):
            raise ValueError(f"{key}: {file}: {name!r} and {found[place][role]!r} are the same factor")
        found[place][role] = name
    if not found:
        raise ValueError(f"{key}: {file} holds no LoRA")
    try:
        check_base(file, base)
        adapter_settings(file)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    places = []
    for (part, layer), keys in sorted(found.items()):
        if absent := [role for role in ("down", "up") if role not in keys]:
            raise ValueError(f"{key}: {file}: {next(iter(keys.values()))!r} has no factor {absent[0]} beside it")
        places.append(LoraPlace(part, layer, keys["down"], keys["up"], keys.get("alpha"), layers[part][layer]))
        try:
            _check_shapes(places[-1], header)
        except ValueError as error:
            raise ValueError(f"{key}: {file}: {error} in {base.folder}: it was trained on another base") from None
    return places


def _check_shapes(place: LoraPlace, header: Mapping[str, Shape]) -> None:
    """ValueError for factors that do not fit their layer: down (r, in, ...), up (out, r, ...)."""
    down, up, wanted = header[place.down], header[place.up], place.shape
    for name, shape, side in ((place.down, down, 1), (place.up, up, 0)):
        if len(shape) < 2 or shape[side] != wanted[side]:
            raise ValueError(f"{name!r} has the shape {list(shape)}, its layer {list(wanted)}")
    if down[0] != up[1] or math.prod(down[2:]) != math.prod(wanted[2:]) or math.prod(up[2:]) != 1:
        raise ValueError(f"factors of the shapes {list(down)} and {list(up)} do not give the layer {list(wanted)}")
    if place.alpha is not None and math.prod(header[place.alpha]) != 1:
        raise ValueError(f"{place.alpha!r} is no single number for the layer {list(wanted)}")


def _layers(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """{layer: shape of its weight} of what multiplies: matrices and convolutions."""
    return {key.removesuffix(".weight"): s for key, s in shapes.items() if key.endswith(".weight") and len(s) > 1}


def _spelled(part: str, layers: Iterable[str], base: DiffusionFolder) -> dict[str, str]:
    """{kohya's name without its prefix: layer}"""
    names = list(layers)
    spelled = {name.replace(".", "_"): name for name in names}
    if part == UNET:
        originals = {original_name(name, base.unet): name for name in names}
        return {name.replace(".", "_"): layer for name, layer in originals.items()} | spelled
    return spelled | {f"text_model_{name.replace('.', '_')}": name for name in names}


def _place(
    name: str, layers: Mapping[str, Mapping[str, Shape]], spelled: Mapping[str, Mapping[str, str]]
) -> tuple[str, str] | None:
    """Component and layer of a key without its ending; None when there is none."""
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
