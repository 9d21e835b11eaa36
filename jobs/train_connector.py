"""Train what joins Qwen2-VL and Flux: from image tokens back to the pictures.

    genloop run train_connector tiny out=runs/connector-tiny
    genloop run train_connector qwen2vl_flux shards=PICTURES out=runs/connector --procs 8

Reads   WebDataset shards with png, jpg, jpeg or webp, captions are not needed; a Qwen2vl-Flux in the published
        layout.
Writes  RUN/connector.pt, as published; with parts=[connector, transformer] also RUN/transformer; both are given to
        `edit` by its keys of that name. RUN/cache, latents and image tokens, computed once;
        RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl, with eval_every also val_loss of held-out
        pictures from step 0 on.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch,
        times and noise follow from the config; one process gives the same bits with and without interruption.

The loss is that of flow matching (Lipman et al. 2023), as Flux has it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import CountOrNone, Repeats, Share, Weight, Width
from genloop.config import LAUNCH, JobConfig, ReadPath
from genloop.data.latents.buckets import Size
from genloop.data.latents.examples import CaptionedImages
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import loading, run
from genloop.meanings import EVAL_EVERY, SHARDS, START, VAL_SHARE
from genloop.models.flux_edit.config import EditFolder, check_edit_folder, edit_folder
from genloop.registry import check_installed
from genloop.training.guards.settings import LineGuardSettings
from genloop.training.settings import TrainSettings

if TYPE_CHECKING:
    from genloop.training.objectives.connector import FlowMatching

KIND = "collective"
COMPONENTS = ("qwen", "connector", "clip", "vae", "transformer")


class Config(JobConfig):
    shards: ReadPath = Field(description=SHARDS)
    start: Annotated[str | None, LAUNCH] = Field(None, description=f"{START}; null: CHECKPOINT_DIR")
    new: bool = Field(False, description="begin with a new connector in place of the checkpoint's")
    parts: tuple[Literal["connector", "transformer"], ...] = Field(("connector",), description="what is trained")
    resolution: Width = Field(512, description="pixels along the side of a square that is cut out of each picture")
    image_tokens: Repeats = Field(256, description="of a picture, about")
    guidance_scale: Weight = Field(1.0, description="that the model is told")
    val_share: Share = Field(0.02, lt=1, description=VAL_SHARE)
    eval_every: CountOrNone = Field(0, description=EVAL_EVERY)
    train: TrainSettings = TrainSettings()
    guards: LineGuardSettings = LineGuardSettings()


@dataclass(frozen=True)
class Checked:
    """What there is to learn from."""

    pictures: CaptionedImages
    folder: EditFolder


def check(config: Config) -> Checked:
    """The checkpoint's headers and those of all pictures, before anything is written."""
    config.train.check()
    if "connector" not in config.parts:
        raise ValueError("parts: the connector learns in any case")
    folder = check_edit_folder(resolve(str(edit_folder(config.start, key="start"))), COMPONENTS)
    multiple = 2 * folder.factor
    if config.resolution % multiple:
        raise ValueError(f"resolution: {config.resolution} is not a multiple of {multiple}")
    check_installed("diffusers", "diffusion")
    side = Size(config.resolution, config.resolution)
    pictures = CaptionedImages(Shards(config.shards), [side], needs_captions=False)
    if len(pictures) - _num_held_out(config, len(pictures)) < 1:
        raise ValueError(f"{config.shards}: {len(pictures)} pictures are too few for val_share={config.val_share}")
    return Checked(pictures, folder)


def _num_held_out(config: Config, pictures: int) -> int:
    return round(config.val_share * pictures) if config.eval_every else 0


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """Shards and checkpoint enter the fingerprint by content."""
    return {"shards": checked.pictures.shards.digest(), "checkpoint": checked.folder.folder}


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.models.flux_edit.load import save_connector, save_transformer
    from genloop.training.guards.guard import Guard
    from genloop.training.loop import train
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        with loading():  # pictures that do not decode
            objective = objective_of(config, checked, world, device)
        objective.guard = Guard(config.guards, config.out, world)
        train(objective, config.train, config.out, world, seed=config.seed)
        if world.rank == 0:
            if "transformer" in config.parts:
                save_transformer(objective.model.transformer, config.out / "transformer")
            save_connector(objective.model.connector, config.out / "connector.pt")


def objective_of(config: Config, checked: Checked, world: World, device: str) -> "FlowMatching":
    """What is trained, its caches full."""
    import torch

    from genloop.models.flux_edit import load
    from genloop.training.connector import fill_caches, pooled_empty_text
    from genloop.training.objectives.connector import ConnectedFlux, FlowMatching

    folder, pictures = checked.folder.folder, checked.pictures
    read = fill_caches(folder, pictures, config.out / "cache", config.image_tokens, world, device)
    connector = load.new_connector(folder, config.seed) if config.new else load.load_connector(folder)
    transformer = load.load_transformer(folder, dtype=torch.float32, device=device, text=None)
    transformer.requires_grad_("transformer" in config.parts)
    connector.requires_grad_(True)
    model = ConnectedFlux(connector, transformer, pooled_empty_text(folder), guidance=config.guidance_scale).to(device)
    tokens = config.resolution // (2 * checked.folder.factor)
    return FlowMatching(
        model,
        read,
        pictures.shards.sizes,
        (tokens, tokens),
        seed=config.seed,
        batch_size=config.train.batch_size,
        num_held_out=_num_held_out(config, len(pictures)),
        eval_every=config.eval_every,
        world=world,
    )


if __name__ == "__main__":
    run(main, Config)
