"""Folders of diffusers' text-to-image pipelines, checked from model_index.json, configs and headers. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genloop.checkpoint import Shape, read_shapes
from genloop.models.unet.config import STOCK, UNETS
from genloop.reading import read_json_object

INDEX = "model_index.json"
UNET = "unet"
COMPONENTS = {  # pipeline -> the folders that have weights
    "StableDiffusionPipeline": (UNET, "vae", "text_encoder"),
    "StableDiffusionXLPipeline": (UNET, "vae", "text_encoder", "text_encoder_2"),
}
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
PREDICTIONS = ("epsilon", "v_prediction")  # of networks that are trained


class DiffusionFolder(NamedTuple):
    """What is known of a pipeline before it is loaded."""

    folder: Path
    pipeline: str
    unet: dict[str, Any]  # config.json
    vae: dict[str, Any]
    scheduler: dict[str, Any]
    is_fresh: bool = False  # whether `unet` is of sizes of one's own, instead of the one that is in the folder

    @property
    def factor(self) -> int:
        """Pixels along the side of a cell of a latent."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def multiple(self) -> int:
        """What the sides of an image in pixels are multiples of: cells of a latent, halved on the UNet's way down."""
        return self.factor * 2 ** (len(self.unet["block_out_channels"]) - 1)

    def grid(self, height: int | None, width: int | None) -> tuple[int, int]:
        """h, w of a latent for a size in pixels, by default the one of the training; ValueError for one in between."""
        trained = self.unet["sample_size"]
        sides = trained if isinstance(trained, list) else (trained, trained)
        for name, pixels in (("height", height), ("width", width)):
            if pixels is not None and pixels % self.multiple:
                raise ValueError(f"sampling.{name}: {pixels} is not a multiple of {self.multiple}")
        rows, columns = (
            side if pixels is None else pixels // self.factor for side, pixels in zip(sides, (height, width))
        )
        return rows, columns


def check_diffusion_folder(folder: Path) -> DiffusionFolder:
    """Refuse what is no pipeline of `COMPONENTS`, whole and in safetensors: FileNotFoundError or ValueError."""
    index = _object(folder / INDEX, f"{folder} is no folder of a diffusers pipeline")
    name = index.get("_class_name")
    if name not in COMPONENTS:
        raise ValueError(f"{folder / INDEX}: _class_name is {name!r}, expected one of {', '.join(COMPONENTS)}")
    for component in COMPONENTS[name]:
        _object(folder / component / "config.json", f"{folder}: the pipeline's {component} is missing")
        component_shapes(folder, component)
        tokenizer = TOKENIZERS.get(component)
        if tokenizer and not (folder / tokenizer).is_dir():
            raise FileNotFoundError(f"{folder}: the pipeline's {tokenizer} is missing")
    scheduler = _object(
        folder / "scheduler" / "scheduler_config.json", f"{folder}: the pipeline's scheduler is missing"
    )
    unet, vae = (read_json_object(folder / part / "config.json") for part in (UNET, "vae"))
    _check_sizes(folder, unet, vae)
    return DiffusionFolder(folder, name, unet, vae, scheduler)


def components_of(base: DiffusionFolder, parts: Sequence[str]) -> list[str]:
    """The components of a pipeline behind parts that are trained: `unet`, and `text_encoder` for all text encoders."""
    wanted = {UNET} & set(parts) | (set(TOKENIZERS) if "text_encoder" in parts else set())
    return [component for component in COMPONENTS[base.pipeline] if component in wanted]


def check_schedule(config: Mapping[str, Any]) -> None:
    """Refuse a scheduler_config.json whose network predicts neither noise nor v: ValueError."""
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS or "beta_schedule" not in config:
        raise ValueError(
            f"start: its scheduler is a {config.get('_class_name')} with prediction_type {prediction!r}; trained are "
            f"networks that predict {' or '.join(PREDICTIONS)} under a schedule of betas"
        )


def component_shapes(folder: Path, component: str) -> dict[str, Shape]:
    """{key: shape} of a component's weights."""
    part = folder / component
    if not any(part.glob("*.safetensors")):
        raise FileNotFoundError(f"{part} holds no weights in safetensors")
    return read_shapes(part)


def _object(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{otherwise}: there is no {path}")
    return read_json_object(path)


def _check_sizes(folder: Path, unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """A UNet that draws latents of this VAE from texts alone."""
    for part, config, keys in (
        (UNET, unet, ("sample_size", "in_channels", "block_out_channels")),
        ("vae", vae, ("latent_channels", "block_out_channels")),
    ):
        for key in keys:
            if not config.get(key):
                raise ValueError(f"{folder / part / 'config.json'}: {key} is missing")
    if (kind := unet.get("_class_name", STOCK)) not in UNETS:
        raise ValueError(
            f"{folder / UNET / 'config.json'}: _class_name is {kind!r}, expected one of {', '.join(UNETS)}"
        )
    if unet["in_channels"] != vae["latent_channels"]:
        raise ValueError(
            f"{folder}: the UNet takes {unet['in_channels']} channels, latents of the VAE have "
            f"{vae['latent_channels']}; inpainting checkpoints draw no images of texts alone"
        )
    if unet.get("time_cond_proj_dim"):
        raise ValueError(f"{folder}: the UNet is told the guidance scale; use an LCM LoRA on its base instead")
