"""Train a small diffusion model with a perceptual loss on captioned images.

    genloop run train_diffusion tiny out=runs/diffusion-tiny
    genloop run train_diffusion shapes start=runs/fresh/pipeline shards=runs/scenes/shards out=runs/diffusion
    torchrun --nproc-per-node 8 -m jobs.train_diffusion sd15_512 shards=runs/teacher/shards out=runs/diffusion

Reads   WebDataset shards with txt and png, jpg, jpeg or webp, as train_student does; of `start`, a pipeline in
        diffusers' layout, VAE, text encoders, tokenizers and noise schedule. Its UNet is read where
        model.kind=start; by default the UNet is a new one with depthwise convolutions.
Writes  RUN/pipeline, a folder of diffusers that `generate` samples; RUN/buckets.json, RUN/cache, RUN/checkpoints,
        RUN/metrics.jsonl and RUN/previews as train_student does, with `mse`, `perceptual` and each of its
        distances.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Fresh weights,
        every step's batch, timesteps, noise and cuts follow from the config; one process gives the same bits with
        and without interruption.
"""

from pathlib import Path

from ckpts.resolve import resolve
from genloop.config import JobConfig
from genloop.distributed import World
from genloop.job import run
from genloop.planning import Footprint
from genloop.training.student.fresh import DiffusionKeys
from genloop.training.student.keys import StudentData

KIND = "collective"


class Config(DiffusionKeys, JobConfig):
    """See `DiffusionKeys`."""


def check(config: Config) -> StudentData:
    """The base, the sizes of the UNet, all samples, before anything is written."""
    return config.check_student(resolve)


def inputs(config: Config, checked: StudentData) -> dict[str, Path | str]:
    """Shards and checkpoints enter the fingerprint by content."""
    return config.student_inputs(resolve, checked)


def footprint(config: Config, checked: StudentData, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; the caches are counted, not computed."""
    from genloop.training.student.start import student_footprint

    return student_footprint(config, checked, device=device, ranks=ranks)


def main(config: Config, world: World, checked: StudentData) -> None:
    from genloop.training.student.start import train_student

    train_student(config, world, checked, resolve=resolve, name="pipeline")


if __name__ == "__main__":
    run(main, Config)
