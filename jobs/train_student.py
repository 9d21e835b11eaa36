"""Train a Stable Diffusion or SDXL, or LoRA adapters, on captioned images.

    genloop run train_student tiny out=runs/student-tiny
    genloop run train_student sd15 shards=runs/teacher/shards out=runs/student
    torchrun --nproc-per-node 2 -m jobs.train_student sd15 shards=runs/teacher/shards out=runs/student

Reads   WebDataset shards with txt and png, jpg, jpeg or webp (`generate format=shards` and make_shapes write
        them), a pipeline in diffusers' layout.
Writes  RUN/lora, adapters as diffusers and web UIs read them, or with weights=full RUN/student, the whole
        pipeline; RUN/buckets.json, sizes and how many samples each has; RUN/cache (or `cache`), latents and text
        embeddings; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl, with eval_every also val_loss of
        held-out samples; with guards.every RUN/previews, images of fixed prompts and noise from step 0 on;
        RUN/alarms.jsonl, and RUN/stopped.json when one of guards.stop_on ended it.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch,
        timesteps and noise follow from the config; one process gives the same bits with and without interruption.
"""

from pathlib import Path

from ckpts.resolve import resolve
from genloop.config import JobConfig
from genloop.distributed import World
from genloop.job import run
from genloop.planning import Footprint
from genloop.training.student.keys import StudentData, StudentKeys

KIND = "collective"


class Config(StudentKeys, JobConfig):
    """See `StudentKeys`."""


def check(config: Config) -> StudentData:
    """The base, all samples and what is asked of them, before anything is written."""
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

    train_student(config, world, checked, resolve=resolve, name="student")


if __name__ == "__main__":
    run(main, Config)
