"""The published folder of Qwen2vl-Flux, checked from configs and headers. No torch until the two .pt files are read.

    flux/              FLUX.1 of diffusers: tokenizer, text_encoder, both also with _2, scheduler, vae, transformer
    qwen2-vl/          Qwen2-VL in transformers' layout, old key names included; processor files
        connector.pt   {linear.weight (D, Q), linear.bias (D,)}, perhaps with "module." in front
        t5_embedder.pt {weight (I, D), bias (I,)}
    controlnet/        a union FluxControlNetModel
    depth/             Depth Anything in transformers' layout
    sam2/              SAM 2 in transformers' layout
    anyline/MTEED.pth  TEED, the edges of Anyline

Q, D, I = widths of Qwen2-VL (3,584), of the text tokens (4,096), of the transformer (3,072).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from genloop.checkpoint import Shape, check_gguf, read_header, read_shapes
from genloop.models.flux_edit.needs import COMPONENTS
from genloop.reading import read_json_object

CHECKPOINT_DIR = "CHECKPOINT_DIR"  # the variable of the released code
CONNECTOR, T5_EMBEDDER = "qwen2-vl/connector.pt", "qwen2-vl/t5_embedder.pt"
PLACES = {  # component -> what has to be there
    "qwen": ("qwen2-vl/config.json",),
    "connector": (CONNECTOR,),
    "t5": ("flux/text_encoder_2/config.json", "flux/tokenizer_2"),
    "t5_embedder": (T5_EMBEDDER,),
    "clip": ("flux/text_encoder/config.json", "flux/tokenizer"),
    "vae": ("flux/vae/config.json", "flux/scheduler/scheduler_config.json"),
    "transformer": ("flux/transformer/config.json",),
    "controlnet": ("controlnet/config.json",),
    "depth": ("depth/config.json",),
    "sam2": ("sam2/config.json",),
    "anyline": ("anyline/MTEED.pth",),
}
WEIGHTS = {  # component -> the folder of its weights
    "qwen": "qwen2-vl",
    "t5": "flux/text_encoder_2",
    "clip": "flux/text_encoder",
    "vae": "flux/vae",
    "transformer": "flux/transformer",
    "controlnet": "controlnet",
    "depth": "depth",
    "sam2": "sam2",
}


class EditFolder(NamedTuple):
    """What is known of a checkpoint before it is loaded."""

    folder: Path
    components: tuple[str, ...]
    transformer: dict[str, Any]  # config.json
    vae: dict[str, Any]

    @property
    def factor(self) -> int:
        """Pixels along the side of a cell of a latent."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)


def edit_folder(name: str | None, *, key: str = "checkpoint") -> Path:
    """The folder that the config key names, or else CHECKPOINT_DIR; ValueError when neither does."""
    if name:
        return Path(name)
    if place := os.environ.get(CHECKPOINT_DIR):
        return Path(place)
    raise ValueError(f"{key}: needs a folder, or a name of `ckpts`, or the variable {CHECKPOINT_DIR}")


def check_edit_folder(folder: Path, components: Iterable[str] = COMPONENTS) -> EditFolder:
    """Refuse a folder in which one of the components is missing, or does not fit: FileNotFoundError or ValueError."""
    wanted = tuple(components)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    for component in wanted:
        for place in PLACES[component]:
            if not (folder / place).exists():
                raise FileNotFoundError(f"{folder}: {component} is missing: there is no {folder / place}")
        if component in WEIGHTS:
            component_shapes(folder, component)
    transformer, vae = (read_json_object(folder / "flux" / part / "config.json") for part in ("transformer", "vae"))
    channels = vae.get("latent_channels", 0)
    if transformer.get("in_channels") != 4 * channels:
        raise ValueError(
            f"{folder / 'flux'}: the transformer takes {transformer.get('in_channels')} channels, tokens of the VAE's "
            f"latents have {4 * channels}"
        )
    return EditFolder(folder, wanted, transformer, vae)


def is_gguf(path: Path) -> bool:
    """Whether a file is said to be GGUF, by its name."""
    return path.suffix.lower() == ".gguf"


def check_transformer_file(path: Path) -> None:
    """Refuse what is neither a folder nor a file of weights: FileNotFoundError or ValueError."""
    if not path.exists():
        raise FileNotFoundError(f"transformer: there is no {path}")
    if path.is_dir():
        return
    if path.suffix.lower() == ".safetensors":
        read_header(path)
    elif not is_gguf(path):
        raise ValueError(f"transformer: {path} is neither a folder nor a .safetensors or .gguf file")
    else:
        check_gguf(path)


def component_shapes(folder: Path, component: str) -> dict[str, Shape]:
    """{key: shape} of a component's weights."""
    return read_shapes(folder / WEIGHTS[component])
