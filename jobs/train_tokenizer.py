"""Make an image tokenizer for the embedded world: patches, MAGVIT-v2, or a VAE.

    genloop run train_tokenizer tiny out=runs/tokenizer-tiny
    genloop run train_tokenizer shapes out=runs/tokenizer
    genloop run train_tokenizer magvit2 out=runs/magvit2 --procs 2
    genloop run train_tokenizer vae out=runs/vae

Reads   kind=patches: nothing. The others: WebDataset shards with png (make_shapes with_images=true writes them).
Writes  RUN/tokenizer, a checkpoint folder; kind=autoencoder_kl: RUN/vae, one of diffusers' AutoencoderKL;
        RUN/survival.json, what encode and decode leave of fresh scenes; what is trained also has
        RUN/checkpoints/step-*, to resume from, and RUN/metrics.jsonl.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch
        follows from the config; one process gives the same bits with and without interruption.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from genloop import terminal
from genloop.bounds import Repeats, TotalOrNone, Weight, Width
from genloop.config import JobConfig, ReadPath, Settings
from genloop.data.image_reader import check_images
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import run
from genloop.meanings import SHARDS
from genloop.models.magvit2.config import MagvitConfig
from genloop.planning import Footprint
from genloop.registry import check_installed
from genloop.rundir import write_json
from genloop.training.guards.settings import LineGuardSettings
from genloop.training.settings import ReconstructionWeights, TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from genloop.training.task import Objective

KIND = "collective"
_MEASURED = 1024  # samples whose latents give the scaling factor


class ModelShape(Settings):
    """Sizes of a MAGVIT-v2; a token is 2 ** (levels - 1) pixels wide."""

    num_bits: Width = Field(10, le=16, description="of a token; the codebook has 2 ** num_bits codes")
    width: Width = Field(32, ge=4, description="channels of the first level")
    encoder_mult: tuple[Repeats, ...] = Field((1, 1, 2), min_length=1, description="channels of each level, in widths")
    encoder_blocks: tuple[Repeats, ...] = Field((1, 1, 1), min_length=1, description="residual blocks of each level")
    decoder_mult: tuple[Repeats, ...] = Field((1, 1, 2), min_length=1, description="channels of each level, in widths")
    decoder_blocks: tuple[Repeats, ...] = Field((1, 1, 1), min_length=1, description="residual blocks of each level")
    num_groups: Width = Field(8, description="of group normalisation")
    resolution: Width = Field(24, ge=4, description="pixels on a side of the images")


class AutoencoderSettings(Settings):
    """Sizes of an AutoencoderKL, and the weight of its divergence; a cell is 2 ** (levels - 1) pixels wide."""

    channels: tuple[Width, ...] = Field((16, 32, 48), min_length=1, description="of each level")
    latent_channels: Width = Field(8, description="of a cell of a latent")
    layers: Repeats = Field(1, description="residual blocks of a level")
    num_groups: Width = Field(8, description="of group normalisation")
    resolution: Width = Field(24, ge=4, description="pixels on a side of the images")
    kl: Weight = Field(1e-4, description="weight of the divergence of latents from a normal distribution")


class Config(JobConfig):
    kind: Literal["patches", "magvit2", "autoencoder_kl"] = Field(
        "patches", description="an enumerated codebook, a trained MAGVIT-v2, or the VAE of a diffusion model"
    )
    shards: ReadPath | None = Field(None, description=SHARDS)
    model: ModelShape = Field(ModelShape(), description="for kind=magvit2")
    loss: ReconstructionWeights = Field(ReconstructionWeights(), description="for kind=magvit2")
    autoencoder: AutoencoderSettings = Field(AutoencoderSettings(), description="for kind=autoencoder_kl")
    train: TrainSettings = TrainSettings()
    guards: LineGuardSettings = LineGuardSettings()
    num_scenes: TotalOrNone = Field(2000, description="fresh scenes of the embedded world to measure survival on")


def check(config: Config) -> Shards | None:
    """Shards and sizes, before anything is written -> the shards to train on, None when nothing is trained."""
    if config.kind == "patches":
        return None
    if config.shards is None:
        raise ValueError(f"shards: needs a folder when kind is {config.kind}")
    config.train.check()
    shards = Shards(config.shards)
    check_images(shards, _check_magvit2(config) if config.kind == "magvit2" else _check_autoencoder(config))
    return shards


def _check_magvit2(config: Config) -> int:
    """Sizes that fit each other -> pixels on a side."""
    shape = MagvitConfig(**config.model.model_dump())
    levels = {len(getattr(shape, f"{side}_{what}")) for side in ("encoder", "decoder") for what in ("mult", "blocks")}
    if len(levels) != 1:
        raise ValueError("model: encoder_mult, encoder_blocks, decoder_mult and decoder_blocks differ in length")
    if shape.resolution % shape.factor or shape.width % shape.num_groups:
        raise ValueError(
            f"model: resolution {shape.resolution} must be a multiple of {shape.factor}, "
            f"width {shape.width} one of num_groups {shape.num_groups}"
        )
    return shape.resolution


def _check_autoencoder(config: Config) -> int:
    """Sizes that fit each other -> pixels on a side."""
    check_installed("diffusers", "diffusion")
    shape = config.autoencoder
    factor = 2 ** (len(shape.channels) - 1)
    if shape.resolution % factor or any(width % shape.num_groups for width in shape.channels):
        raise ValueError(
            f"autoencoder: resolution {shape.resolution} must be a multiple of {factor}, channels "
            f"{list(shape.channels)} multiples of num_groups {shape.num_groups}"
        )
    return shape.resolution


def inputs(config: Config, checked: Shards | None) -> dict[str, Path | str]:
    """Shards enter the fingerprint by content."""
    return {} if checked is None else {"shards": checked.digest()}


def footprint(config: Config, checked: Shards | None, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; an enumerated codebook takes next to nothing."""
    from genloop.training.footprint import training_footprint

    if checked is None:
        return Footprint({}, 0)
    return training_footprint(
        lambda: _objective(config, checked, "meta"), config.train, seed=config.seed, device=device, ranks=ranks
    )


def main(config: Config, world: World, checked: Shards | None) -> None:
    from genloop.shapes.codebook import PatchCodebook

    if checked is not None:
        train_on(config, world, checked)
    elif world.rank == 0:
        PatchCodebook.enumerate().save(config.out / "tokenizer")
    if world.rank == 0 and config.num_scenes:
        found = _survival(config)
        write_json(config.out / "survival.json", found)
        terminal.out(f"{found['survived']} of {found['scenes']} scenes survive, PSNR {found['psnr'] or 'infinite'}")


def _objective(config: Config, shards: Shards, device: str) -> "Objective[int, Any]":
    batch_size = config.train.batch_size
    if config.kind == "autoencoder_kl":
        from genloop.models.diffusion.fresh import fresh_vae
        from genloop.training.objectives.autoencoder import Autoencoding

        sizes = config.autoencoder.model_dump(exclude={"kl", "resolution"})
        vae = fresh_vae(**sizes, side=config.autoencoder.resolution, seed=config.seed).to(device)
        return Autoencoding(vae, shards, kl=config.autoencoder.kl, seed=config.seed, batch_size=batch_size)

    from genloop.models.magvit2.load import build_magvit2
    from genloop.training.objectives.tokenizer import Reconstruction

    model = build_magvit2(MagvitConfig(**config.model.model_dump()), seed=config.seed, device=device)
    return Reconstruction(model, shards, config.loss, seed=config.seed, batch_size=batch_size)


def train_on(config: Config, world: World, shards: Shards) -> None:
    """Train on the shards' pixels and write RUN/tokenizer or RUN/vae."""
    from genloop.training.guards.guard import Guard
    from genloop.training.loop import train
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        objective = _objective(config, shards, device)
        objective.guard = Guard(config.guards, config.out, world)
        train(objective, config.train, config.out, world, seed=config.seed)
        if world.rank == 0:
            _save(config, objective.model, shards)


def _save(config: Config, model: Any, shards: Shards) -> None:
    if config.kind == "autoencoder_kl":
        from genloop.models.diffusion.fresh import save_vae
        from genloop.training.objectives.autoencoder import scaling_factor

        rows = range(min(_MEASURED, sum(shards.sizes)))
        factor = scaling_factor(model.eval(), shards, rows, rows_per_pass=config.train.batch_size)
        save_vae(model, config.out / "vae", scaling_factor=factor)
    else:
        from genloop.models.magvit2.load import save_magvit2

        save_magvit2(model, config.out / "tokenizer")


def _survival(config: Config) -> dict[str, Any]:
    """What encode and decode leave of fresh scenes."""
    from genloop.shapes.survival import measure_survival, token_survival

    if config.kind == "autoencoder_kl":
        from genloop.models.diffusion.fresh import load_vae

        vae = load_vae(config.out / "vae")

        def rebuild(pixels: "Tensor") -> "Tensor":
            return vae.decode(vae.encode(pixels * 2 - 1).latent_dist.mode()).sample / 2 + 0.5

        return measure_survival(rebuild, seed=config.seed, num_scenes=config.num_scenes)

    from genloop.models.common.image_tokenizers import load_image_tokenizer

    tokenizer = load_image_tokenizer(config.out / "tokenizer")
    return token_survival(tokenizer, seed=config.seed, num_scenes=config.num_scenes)


if __name__ == "__main__":
    run(main, Config)
