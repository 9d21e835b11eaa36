"""Chat models from folders of transformers, in full or in four bits, and fresh ones by their sizes; saved the same way.

NF4 with double quantisation (Dettmers et al. 2023) by bitsandbytes: weights of linear layers take half a byte each and
are frozen; what is computed with them is computed in `dtype`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genloop.checkpoint import save_folder
from genloop.models.instructblip.config import FILES as INSTRUCTBLIP_FILES
from genloop.models.qwen.config import CLASSES, ChatFolder
from genloop.models.qwen.model import ChatModel
from genloop.reading import read_bytes
from genloop.registry import require

_SEEING = ((re.compile(r"^model\.visual\."), "visual."), (re.compile(r"^model\.language_model\."), "model."))
_SAVED: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {  # names in memory -> those of the public files
    "qwen2": (),
    "qwen2_vl": _SEEING,
    "qwen2_5_vl": _SEEING,
    "llava_onevision": (
        (re.compile(r"^model\.vision_tower\."), "vision_tower.vision_model."),
        (re.compile(r"^model\.language_model\."), "language_model.model."),
        (re.compile(r"^lm_head\."), "language_model.lm_head."),
        (re.compile(r"^model\.(?=multi_modal_projector\.|image_newline$)"), ""),
    ),
    "instructblip": (),
}
_PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao"}
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.json", "chat_template.jinja", "preprocessor_config.json", "processor_config.json"),
    *("generation_config.json", "video_preprocessor_config.json"),
    *INSTRUCTBLIP_FILES,
)


def load_chat_model(
    folder: ChatFolder, *, dtype: torch.dtype = torch.float32, device: str = "cpu", nf4: bool = False
) -> ChatModel:
    """The model of a checked folder, in eval mode; with `nf4` its linear layers in four bits.

    A folder whose weights are quantised gives a model in which they stay so; what is computed is computed in `dtype`.
    ValueError when tensors are missing, unexpected or of another shape.
    """
    transformers = require("transformers")
    kind = getattr(transformers, CLASSES[folder.family])
    if device == "meta":
        return _on_meta(folder, kind, dtype)
    require("transformers.utils.logging").disable_progress_bar()
    if package := _PACKAGES.get(folder.quantised):
        require(package, "qlora")
    options: dict[str, Any] = {"quantization_config": nf4_config(dtype)} if nf4 else {}
    model, told = kind.from_pretrained(
        str(folder.folder),
        dtype=dtype,
        device_map={"": device},
        attn_implementation="sdpa",
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, told[what])):
            raise ValueError(f"{folder.folder}: {what.replace('_', ' ')}: {', '.join(names[:3])}; download it again")
    for module in model.modules() if nf4 or folder.quantised == "nf4" else ():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # repacks weights in evaluation, and not back exactly
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = dtype  # a quantised folder has one of its own
    return model.eval()


def build_chat_model(
    config: Mapping[str, Any], *, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> ChatModel:
    """A model with fresh weights keyed by `seed`, as transformers draws them, in training mode."""
    transformers = require("transformers")
    settings = transformers.AutoConfig.for_model(**dict(config))
    settings._attn_implementation = "sdpa"
    kind = getattr(transformers, CLASSES[str(config["model_type"])])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta" if device == "meta" else "cpu"):
            model = kind(settings)
    return model.to(device=device, dtype=dtype).train()


def save_chat_model(model: ChatModel, folder: Path, files: Mapping[str, bytes]) -> None:
    """Write config.json and model.safetensors under their public names, and `files`, the tokenizer's, beside them."""
    names = _SAVED[model.config.model_type]
    state = {key: value for key, value in model.state_dict().items() if key not in model.all_tied_weights_keys}
    tensors = {_saved_name(key, names): value.contiguous() for key, value in state.items()}
    config = model.config.to_dict() | {"architectures": [type(model).__name__]}
    config.pop("quantization_config", None)
    for part in (config, *config.values()):
        if isinstance(part, dict) and part.get("dtype") is not None:  # as it was loaded, which may be another one
            part["dtype"] = str(model.dtype).removeprefix("torch.")
    save_folder(folder, tensors, {"config.json": config, **files}, weights="model.safetensors")


def files_of(folder: Path) -> dict[str, bytes]:
    """{name: content} of what belongs to a model beside config.json and weights."""
    return {name: read_bytes(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}


def quantised_layers(model: nn.Module) -> list[str]:
    """The names of the linear layers that `nf4` would hold in four bits: all but the head."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linear if not name.endswith("lm_head")]


def _saved_name(key: str, names: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    return next((old.sub(new, key) for old, new in names if old.match(key)), key)


def nf4_config(dtype: torch.dtype) -> Any:
    require("bitsandbytes", "train")
    return require("transformers").BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head"],
    )


def _on_meta(folder: ChatFolder, kind: Any, dtype: torch.dtype) -> ChatModel:
    """The same without values."""
    settings = require("transformers").AutoConfig.from_pretrained(str(folder.folder), local_files_only=True)
    settings._attn_implementation = "sdpa"
    with torch.device("meta"):
        return kind(settings).to(dtype).eval()
