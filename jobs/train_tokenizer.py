"""Make an image tokenizer for the embedded world: the lossless patch codebook, or a trained MAGVIT-v2.

    genloop run train_tokenizer tiny out=runs/tokenizer-tiny
    genloop run train_tokenizer shapes out=runs/tokenizer
    genloop run train_tokenizer magvit2 out=runs/magvit2 --procs 2

Reads   kind=patches: nothing. kind=magvit2: WebDataset shards with png (make_shapes images=true writes them).
Writes  RUN/tokenizer, a checkpoint folder; RUN/survival.json, what encode and decode leave of fresh scenes;
        kind=magvit2 also RUN/checkpoints/step-*, to resume from, and RUN/metrics.jsonl.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. On one process the
        result has the same bits with and without interruption.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from genloop import terminal
from genloop.bounds import Repeats, TotalOrNone, Width
from genloop.config import LAUNCH, JobConfig, Settings
from genloop.data.image_reader import check_images
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import run
from genloop.models.magvit2.config import MagvitConfig
from genloop.planning import Footprint
from genloop.rundir import write_json
from genloop.training.settings import ReconstructionWeights, TrainSettings

if TYPE_CHECKING:
    from genloop.training.objectives.tokenizer import Reconstruction

KIND = "collective"


class ModelShape(Settings):
    """Sizes of a MAGVIT-v2; a token is 2 ** (levels - 1) pixels wide."""

    num_bits: Width = Field(10, le=16)
    width: Width = Field(32, ge=4)
    encoder_mult: tuple[Repeats, ...] = (1, 1, 2)
    encoder_blocks: tuple[Repeats, ...] = (1, 1, 1)
    decoder_mult: tuple[Repeats, ...] = (1, 1, 2)
    decoder_blocks: tuple[Repeats, ...] = (1, 1, 1)
    num_groups: Width = Field(8)
    resolution: Width = Field(24, ge=4, description="pixels on a side of the images")


class Config(JobConfig):
    kind: Literal["patches", "magvit2"] = Field("patches", description="an enumerated codebook, or a trained MAGVIT-v2")
    shards: Annotated[Path | None, LAUNCH] = Field(None, description="folder of shards with png, for kind=magvit2")
    model: ModelShape = ModelShape()
    loss: ReconstructionWeights = ReconstructionWeights()
    train: TrainSettings = TrainSettings()
    num_scenes: TotalOrNone = Field(2000, description="fresh scenes of the embedded world to measure survival on")


def check(config: Config) -> Shards | None:
    """Shards and sizes, before anything is written -> the shards to train on, None when nothing is trained."""
    if config.kind == "patches":
        return None
    if config.shards is None:
        raise ValueError("shards: needs a folder when kind is magvit2")
    config.train.check()
    shards = Shards(config.shards)
    shape = MagvitConfig(**config.model.model_dump())
    levels = {len(getattr(shape, f"{side}_{what}")) for side in ("encoder", "decoder") for what in ("mult", "blocks")}
    if len(levels) != 1:
        raise ValueError("model: encoder_mult, encoder_blocks, decoder_mult and decoder_blocks differ in length")
    if shape.resolution % shape.factor or shape.width % shape.num_groups:
        raise ValueError(
            f"model: resolution {shape.resolution} must be a multiple of {shape.factor}, "
            f"width {shape.width} one of num_groups {shape.num_groups}"
        )
    check_images(shards, shape.resolution)
    return shards


def inputs(config: Config, checked: Shards | None) -> dict[str, Path | str]:
    """Shards enter the fingerprint by content."""
    return {} if checked is None else {"shards": checked.digest()}


def main(config: Config, world: World, checked: Shards | None) -> None:
    from genloop.models.common.image_tokenizers import load_image_tokenizer
    from genloop.shapes.codebook import PatchCodebook
    from genloop.shapes.survival import measure_survival

    if checked is not None:
        train_magvit2(config, world, checked)
    elif world.rank == 0:
        PatchCodebook.enumerate().save(config.out / "tokenizer")
    if world.rank == 0 and config.num_scenes:
        tokenizer = load_image_tokenizer(config.out / "tokenizer")
        found = measure_survival(tokenizer, seed=config.seed, num_scenes=config.num_scenes)
        write_json(config.out / "survival.json", found)
        terminal.out(f"{found['survived']} of {found['scenes']} scenes survive, PSNR {found['psnr'] or 'infinite'}")


def footprint(config: Config, checked: Shards | None, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; an enumerated codebook takes next to nothing."""
    from genloop.training.footprint import training_footprint

    if checked is None:
        return Footprint({}, 0)
    return training_footprint(
        lambda: _objective(config, checked, "meta"), config.train, seed=config.seed, device=device, ranks=ranks
    )


def _objective(config: Config, shards: Shards, device: str) -> "Reconstruction":
    from genloop.models.magvit2.load import build_magvit2
    from genloop.training.objectives.tokenizer import Reconstruction

    model = build_magvit2(MagvitConfig(**config.model.model_dump()), seed=config.seed, device=device)
    batch_size = config.train.batch_size
    return Reconstruction(model, shards, config.loss, seed=config.seed, batch_size=batch_size)


def train_magvit2(config: Config, world: World, shards: Shards) -> None:
    """Train on the shards' pixels and write RUN/tokenizer."""
    from genloop.models.magvit2.load import save_magvit2
    from genloop.training.loop import train
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        objective = _objective(config, shards, device)
        model = objective.model
        train(objective, config.train, config.out, world, seed=config.seed)
        if world.rank == 0:
            save_magvit2(model, config.out / "tokenizer")


if __name__ == "__main__":
    run(main, Config)
