"""What a LoRA file says of itself in its header: peft's settings, kohya's ss_*, sshs_* hashes and modelspec.*.

Sources: diffusers (`lora_adapter_metadata`, alpha among it), sd-scripts (`ss_*`; `sshs_*` hash the tensors behind a
header with `ss_*` alone), Stability's ModelSpec 1.0.1. All values are texts. No torch before there are tensors.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genloop.models.diffusion.config import DiffusionFolder
from genloop.reading import parse_json
from genloop.registry import require
from genloop.safetensors_file import safetensors_parts

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_KEY = "lora_adapter_metadata"  # where diffusers keeps peft's settings
_LEGACY_START, _LEGACY_SIZE = 0x100000, 0x10000  # the bytes of a file that sshs_legacy_hash covers
_BASES = {  # pipeline -> ss_base_model_version, modelspec.architecture
    "StableDiffusionPipeline": ("sd_v1", "stable-diffusion-v1"),
    "StableDiffusionXLPipeline": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
}
_SPEC_HASH = "modelspec.hash_sha256"
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def read_metadata(file: Path) -> dict[str, str]:
    """The texts in the header of a safetensors file."""
    with require("safetensors").safe_open(file, framework="numpy") as opened:
        return {key: value for key, value in (opened.metadata() or {}).items() if key != "format"}


def adapter_settings(file: Path) -> dict[str, dict[str, Any]]:
    """{component: peft's settings of its adapters}, as diffusers stores them; empty for a file without.

    ValueError for settings that are no objects, or of a kind that is no plain LoRA.
    """
    text = read_metadata(file).get(ADAPTER_KEY)
    if text is None:
        return {}
    found = parse_json(text, f"{file}: {ADAPTER_KEY}")
    if not isinstance(found, dict):
        raise ValueError(f"{file}: {ADAPTER_KEY}: is no object; write the file again")
    settings: dict[str, dict[str, Any]] = {}
    for key, value in found.items():
        part, _, name = key.partition(".")
        settings.setdefault(part, {})[name] = value
    for part, known in settings.items():
        numbers = [known.get("r"), known.get("lora_alpha"), *_values(known, "alpha_pattern")]
        if not all(isinstance(number, int | float) and number > 0 for number in numbers):
            raise ValueError(f"{file}: {ADAPTER_KEY}: r, lora_alpha or alpha_pattern of {part} are no numbers above 0")
        if known.get("use_dora"):
            raise ValueError(f"{file}: {ADAPTER_KEY}: {part} is a DoRA, only a LoRA can be loaded")
    return settings


def check_base(file: Path, base: DiffusionFolder) -> None:
    """ValueError for a file that names another kind of base."""
    metadata, is_xl = read_metadata(file), base.pipeline == "StableDiffusionXLPipeline"
    for key in ("ss_base_model_version", "modelspec.architecture"):
        if key in metadata and ("xl" in metadata[key].lower()) != is_xl:
            raise ValueError(f"{file}: {key} is {metadata[key]!r}, {base.folder} is a {base.pipeline}: another base")


def _values(settings: Mapping[str, Any], key: str) -> Iterable[Any]:
    pattern = settings.get(key) or {}
    return pattern.values() if isinstance(pattern, Mapping) else [None]


def pack_settings(part: str, ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """{layer: rank}, {layer: alpha} of a component -> peft's settings, under the names that diffusers gives them."""
    rank, alpha = _most_common(ranks.values()), _most_common(alphas.values())
    config = require("peft", "diffusion").LoraConfig(
        r=rank,
        lora_alpha=_plain(alpha),
        target_modules=sorted(ranks),
        rank_pattern={name: value for name, value in sorted(ranks.items()) if value != rank},
        alpha_pattern={name: _plain(value) for name, value in sorted(alphas.items()) if value != alpha},
    )
    settings = config.to_dict() | {"target_modules": sorted(ranks)}  # peft makes a set of them
    return {f"{part}.{name}": value for name, value in settings.items()}


def kohya_metadata(
    tensors: "Mapping[str, Tensor]",
    base: DiffusionFolder,
    ranks: Iterable[int],
    alphas: Iterable[float],
    *,
    title: str,
    training: Mapping[str, Any],
    spec: Mapping[str, str],
) -> dict[str, str]:
    """ss_* of the base, the adapters and of what is known of the `training`, modelspec.*, and their hashes."""
    version, architecture = _BASES[base.pipeline]
    ranks, alphas = set(ranks), set(alphas)
    known: dict[str, Any] = {
        "v2": False,
        "base_model_version": version,
        "network_module": "networks.lora",
        "network_dim": ranks.pop() if len(ranks) == 1 else "Dynamic",
        "network_alpha": alphas.pop() if len(alphas) == 1 else "Dynamic",
        "network_args": {},
        "sd_model_name": base.folder.name,
        "output_name": title,
    }
    side = base.unet["sample_size"] if isinstance(base.unet["sample_size"], int) else base.unet["sample_size"][0]
    prediction = base.scheduler.get("prediction_type", "epsilon")
    ours = {f"ss_{key}": _text(value) for key, value in sorted((known | dict(training)).items()) if value is not None}
    model_hash, legacy_hash = hashes_of(tensors, ours)
    described = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/lora",
        "implementation": "diffusers",
        "title": title,
        "resolution": f"{side * base.factor}x{side * base.factor}",
        "prediction_type": _PREDICTIONS.get(prediction, prediction),
        "hash_sha256": f"0x{model_hash}",
    }
    described |= dict(spec)
    spec_keys = {f"modelspec.{key}": value for key, value in sorted(described.items())}
    return ours | {"sshs_model_hash": model_hash, "sshs_legacy_hash": legacy_hash} | spec_keys


def without_hashes(metadata: Mapping[str, str]) -> dict[str, str]:
    """What is true of the other spelling too."""
    return {key: value for key, value in metadata.items() if not key.startswith("sshs_") and key != _SPEC_HASH}


def hashes_of(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> tuple[str, str]:
    """sshs_model_hash, the sha256 of all tensors' bytes, and sshs_legacy_hash, of 64 KiB behind the first MiB of a
    file whose header holds the ss_* alone.
    """
    whole, legacy, position = hashlib.sha256(), hashlib.sha256(), 0
    ours = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    for number, raw in enumerate(safetensors_parts(tensors, ours)):
        if number:
            whole.update(raw)
        start, end = _LEGACY_START - position, _LEGACY_START + _LEGACY_SIZE - position
        legacy.update(raw[max(start, 0) : max(end, 0)])
        position += len(raw)
    return whole.hexdigest(), legacy.hexdigest()[:8]


def check_hashes(file: Path) -> None:
    """ValueError for a file whose tensors are not those that its hashes were computed of; passes one without."""
    metadata = read_metadata(file)
    tensors = require("safetensors.torch").load_file(file)
    model_hash, legacy_hash = hashes_of(tensors, metadata)
    expected = {
        "sshs_model_hash": model_hash,
        "sshs_legacy_hash": legacy_hash,
        _SPEC_HASH: f"0x{model_hash}",
    }
    for key, value in expected.items():
        if metadata.get(key, value).lower() != value:
            raise ValueError(
                f"{file}: {key} is {metadata[key]}, its tensors give {value}; changed since it was written"
            )


def _most_common(numbers: Iterable[Any]) -> Any:
    counted = Counter(numbers)
    return max(counted, key=lambda number: (counted[number], number))


def _plain(number: float) -> float:
    """16.0 -> 16, as other programs write it."""
    return int(number) if float(number).is_integer() else number


def _text(value: Any) -> str:
    """As sd-scripts writes it: plain values by Python's str, others as JSON."""
    if isinstance(value, float):
        value = _plain(value) if abs(value) >= 1 else value
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, Mapping | list) else str(value)
