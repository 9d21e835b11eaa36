"""Write a latent diffusion model with fresh weights, for train_student.

    genloop run make_diffusion tiny out=runs/fresh
    genloop run make_diffusion shapes_teacher vae=runs/vae/vae out=runs/teacher-fresh
    genloop run make_diffusion shapes_student vae=runs/vae/vae out=runs/student-fresh seed=1

Reads   a VAE of train_tokenizer kind=autoencoder_kl.
Writes  RUN/pipeline, a folder of diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline: the VAE as it
        is, UNet and text encoders with weights keyed by `seed`, CLIP's tokenizer with the world's words as tokens.
Resume  the same command computes it again; the bytes depend on the VAE and the config alone.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Layers, Repeats, Width
from genloop.checkpoint import read_shapes
from genloop.config import LAUNCH, JobConfig, Settings
from genloop.distributed import World
from genloop.job import run
from genloop.reading import read_json_object
from genloop.registry import check_installed

KIND = "independent"


class DiffusionSizes(Settings):
    """Sizes of UNet and text encoders."""

    channels: tuple[Width, ...] = Field((64,), min_length=1, description="of each level of the UNet")
    layers: Repeats = Field(1, description="residual blocks of a level")
    heads: Width = Field(4, description="of attention in the UNet")
    num_groups: Width = Field(8, description="of group normalisation")
    text_width: Width = Field(64, description="of each text encoder")
    text_layers: Layers = Field(2, description="SDXL reads the output of the last but one")
    text_heads: Width = Field(4, description="of attention in a text encoder")


class Config(JobConfig):
    kind: Literal["sd", "sdxl"] = Field("sd", description="Stable Diffusion 1.5, or SDXL with two text encoders")
    vae: Annotated[str, LAUNCH] = Field(description="folder of an AutoencoderKL; fingerprinted by content")
    model: DiffusionSizes = DiffusionSizes()
    text_length: Width = Field(16, ge=4, description="tokens of a text, its two marks included")


def check(config: Config) -> Path:
    """Sizes that fit each other and the VAE, before anything is written -> the folder of the VAE."""
    check_installed("diffusers", "diffusion")
    folder = resolve(config.vae)
    vae = read_json_object(folder / "config.json")
    read_shapes(folder)
    if vae.get("_class_name") != "AutoencoderKL" or not vae.get("sample_size"):
        raise ValueError(f"vae: {folder / 'config.json'} is that of no AutoencoderKL with a sample_size")
    sizes, levels = config.model, len(config.model.channels)
    grid = vae["sample_size"] // 2 ** (len(vae["block_out_channels"]) - 1)
    if grid % 2 ** (levels - 1):
        raise ValueError(f"model.channels: {levels} levels do not halve the {grid} cells of this VAE's latents")
    for name, widths, divisor in (
        ("channels", sizes.channels, sizes.num_groups),
        ("channels", sizes.channels, sizes.heads),
        ("text_width", [sizes.text_width], sizes.text_heads),
    ):
        if any(width % divisor for width in widths):
            raise ValueError(f"model.{name}: {list(widths)} must be multiples of {divisor}, of the groups and heads")
    return folder


def inputs(config: Config, checked: Path) -> dict[str, Path]:
    """The VAE's content enters the fingerprint."""
    return {"vae": checked}


def main(config: Config, world: World, checked: Path) -> None:
    from genloop.models.diffusion.fresh import fresh_pipeline, load_vae, save_pipeline, word_tokenizer
    from genloop.shapes.text import vocabulary

    if world.rank != 0:
        return
    tokenizer = word_tokenizer(vocabulary()[1:], length=config.text_length)
    pipeline = fresh_pipeline(config.kind, tokenizer, load_vae(checked), config.model.model_dump(), seed=config.seed)
    save_pipeline(pipeline, config.out / "pipeline")


if __name__ == "__main__":
    run(main, Config)
