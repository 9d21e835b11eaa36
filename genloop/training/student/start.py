"""How a training of a diffusion model begins: the pipeline, its caches, the objective, and what a rank will hold."""

import logging
from dataclasses import replace
from typing import Any

import torch

from genloop.distributed import World
from genloop.factories import Resolve
from genloop.job import loading
from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.load import PipelineDenoiser, empty_diffusion, load_diffusion
from genloop.models.unet.build import fresh_unet
from genloop.planning import Footprint
from genloop.rundir import write_json
from genloop.training.footprint import training_footprint
from genloop.training.objectives.student.base import StudentObjective
from genloop.training.session import training_session
from genloop.training.student.build import (
    blank_data,
    bucket_table,
    build_objective,
    build_student,
    cache_bytes,
    fill_caches,
    put_away,
)
from genloop.training.student.finish import train_student_to_checkpoint
from genloop.training.student.keys import StudentData

log = logging.getLogger(__name__)


def train_student(keys: Any, world: World, checked: StudentData, *, resolve: Resolve, name: str) -> None:
    """From the keys of a job to RUN/lora or RUN/`name`, on every rank."""
    with training_session(keys.out, keys.train, world) as device:
        if world.rank == 0:
            table = bucket_table(keys, checked)
            write_json(keys.out / "buckets.json", table)
            shown = (f"{row['width']}x{row['height']}: {row['samples']} samples" for row in table)
            log.info("buckets: %s", ", ".join(shown))
        with loading():  # images that do not decode
            objective, adapted = objective_of(keys, checked, world, device)
        train_student_to_checkpoint(objective, adapted, keys, world, resolve=resolve, device=device, name=name)


def objective_of(keys: Any, checked: StudentData, world: World, device: str) -> tuple[StudentObjective, dict[str, Any]]:
    """What is trained, its caches full, and its adapters by component when it has some."""
    denoiser = _loaded(keys, checked.base, device)
    data = fill_caches(keys, denoiser, checked, world)
    student, adapted = build_student(keys, denoiser, checked)
    objective = build_objective(keys, student, data, world)
    if not (keys.guards.has_images or objective.decodes):
        put_away(denoiser, student)
    return objective, adapted


def student_footprint(keys: Any, checked: StudentData, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; the caches are counted, not computed."""
    data = blank_data(keys, checked)

    def build() -> StudentObjective:
        dtype = getattr(torch, keys.dtype)
        denoiser = empty_diffusion(checked.base, grid=keys.preview_grid(checked.base), dtype=dtype)
        student, _ = build_student(keys, denoiser, checked)
        return build_objective(keys, student, data, World(0, ranks))

    found = training_footprint(build, keys.train, seed=keys.seed, device=device, ranks=ranks)
    return replace(found, disk={**found.disk, "cache": cache_bytes(keys, data)})


def _loaded(keys: Any, base: DiffusionFolder, device: str) -> PipelineDenoiser:
    unet = fresh_unet(base.unet, seed=keys.seed) if base.is_fresh else None
    grid, dtype = keys.preview_grid(base), getattr(torch, keys.dtype)
    return load_diffusion(base, grid=grid, dtype=dtype, device=device, unet=unet)
