"""Train a Stable Diffusion or SDXL, or LoRA adapters for one, on shards of captioned images.

    genloop run train_student tiny out=runs/student-tiny
    genloop run train_student sd15 shards=runs/teacher/shards out=runs/student
    torchrun --nproc-per-node 2 -m jobs.train_student sd15 shards=runs/teacher/shards out=runs/student

Reads   WebDataset shards with txt and png, jpg, jpeg or webp (`generate images=shards` and make_shapes write them), a
        pipeline in diffusers' layout.
Writes  RUN/lora, adapters as diffusers and web UIs read them, or with weights=full RUN/student, the whole pipeline;
        RUN/buckets.json, sizes and how many samples each has; RUN/cache (or `cache`), latents and text embeddings;
        RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl, with val_every also val_loss of held-out samples;
        with guards.every RUN/previews, images of fixed prompts and fixed noise from step 0 on.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Every step's batch,
        timesteps and noise follow from the config; one process gives the same bits with and without interruption.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpts.resolve import resolve
from genloop.config import JobConfig
from genloop.distributed import World
from genloop.job import loading, run
from genloop.planning import Footprint
from genloop.rundir import write_json
from genloop.training.student.keys import StudentData, StudentKeys

if TYPE_CHECKING:
    from genloop.training.objectives.student.base import StudentObjective

KIND = "collective"
log = logging.getLogger(__name__)


class Config(StudentKeys, JobConfig):
    """See `StudentKeys`."""


def check(config: Config) -> StudentData:
    """The base, all samples and what is asked of them, before anything is written."""
    return config.check_student(resolve)


def inputs(config: Config, checked: StudentData) -> dict[str, Path | str]:
    """Shards and checkpoints enter the fingerprint by content."""
    return config.student_inputs(resolve, checked)


def main(config: Config, world: World, checked: StudentData) -> None:
    from genloop.training.session import training_session
    from genloop.training.student.build import bucket_table
    from genloop.training.student.finish import train_student_to_checkpoint

    with training_session(config.out, config.train, world) as device:
        if world.rank == 0:
            table = bucket_table(config, checked)
            write_json(config.out / "buckets.json", table)
            shown = (f"{row['width']}x{row['height']}: {row['samples']} samples" for row in table)
            log.info("buckets: %s", ", ".join(shown))
        with loading():  # images that do not decode
            objective, adapted = objective_of(config, checked, world, device)
        train_student_to_checkpoint(objective, adapted, config, world, resolve=resolve, device=device)


def footprint(config: Config, checked: StudentData, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; the caches are counted, not computed."""
    import torch

    from genloop.models.diffusion.load import empty_diffusion
    from genloop.training.footprint import training_footprint
    from genloop.training.student.build import blank_data, build_objective, build_student, cache_bytes

    data = blank_data(config, checked)

    def build() -> "StudentObjective":
        dtype = getattr(torch, config.dtype)
        denoiser = empty_diffusion(checked.base, grid=config.preview_grid(checked.base), dtype=dtype)
        student, _ = build_student(config, denoiser, checked)
        return build_objective(config, student, data, World(0, ranks))

    found = training_footprint(build, config.train, seed=config.seed, device=device, ranks=ranks)
    return replace(found, disk={**found.disk, "cache": cache_bytes(config, data)})


def objective_of(
    config: Config, checked: StudentData, world: World, device: str
) -> "tuple[StudentObjective, dict[str, Any]]":
    """What is trained, its caches full, and its adapters by component when it has some."""
    import torch

    from genloop.models.diffusion.load import load_diffusion
    from genloop.training.student.build import build_objective, build_student, fill_caches, put_away

    grid, dtype = config.preview_grid(checked.base), getattr(torch, config.dtype)
    denoiser = load_diffusion(checked.base, grid=grid, dtype=dtype, device=device)
    data = fill_caches(config, denoiser, checked, world)
    student, adapted = build_student(config, denoiser, checked)
    if not config.guards.has_images:
        put_away(denoiser, student)
    return build_objective(config, student, data, world), adapted


if __name__ == "__main__":
    run(main, Config)
