"""Train an objective of a student under its guards, and write what `generate` loads: RUN/lora or RUN/student."""

import shutil
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from genloop.checkpoint import swap_folder
from genloop.distributed import World
from genloop.factories import Resolve
from genloop.models.diffusion.student import Student
from genloop.registry import require
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.tables import scheduler_table
from genloop.training.guards.build import guard_over
from genloop.training.loop import train
from genloop.training.objectives.student.base import StudentObjective

LORA, STUDENT = "lora", "student"


def train_student_to_checkpoint(
    objective: StudentObjective, adapted: Mapping[str, Any], keys: Any, world: World, *, resolve: Resolve, device: str
) -> None:
    """adapted: by component what `build_student` gave; without any the whole pipeline is written."""
    denoiser = objective.model.denoiser
    tables = partial(scheduler_table, objective.model.base.scheduler, keys.sampling.scheduler)
    objective.guard = guard_over(
        keys.guards,
        keys.out,
        world,
        make_sampler=lambda: DiffusionSampler(denoiser, tables, keys.sampling, slots=1),
        resolve=resolve,
        device=device,
        seed=keys.seed,
    )
    train(objective, keys.train, keys.out, world, seed=keys.seed)
    if world.rank:
        return
    if adapted:
        _save_whole(keys.out / LORA, partial(_save_lora, adapted, objective.model))
    else:
        _save_whole(
            keys.out / STUDENT, lambda folder: denoiser.pipeline.save_pretrained(folder, safe_serialization=True)
        )


def _save_lora(adapted: Mapping[str, Any], student: Student, folder: Path) -> None:
    peft, diffusers = require("peft", "train"), require("diffusers", "diffusion")
    more: dict[str, Any] = {}
    for component, model in adapted.items():
        tensors = peft.get_peft_model_state_dict(model)
        more[f"{component}_lora_layers"] = {name.removeprefix("model."): value for name, value in tensors.items()}
        config = model.peft_config["default"].to_dict()
        more[f"{component}_lora_adapter_metadata"] = config | {"target_modules": sorted(config["target_modules"])}
    getattr(diffusers, student.base.pipeline).save_lora_weights(folder, **more)


def _save_whole(folder: Path, save: Any) -> None:
    """What `save` writes into a folder appears at once."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        save(temporary)
        swap_folder(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
