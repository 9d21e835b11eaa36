"""Train an objective of a student under its guards, and write what `generate` loads: RUN/lora or RUN/student."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genloop.checkpoint import whole_folder
from genloop.config import DType
from genloop.distributed import World
from genloop.factories import Resolve
from genloop.models.diffusion.lora_export import adapted_layers, write_lora
from genloop.reading import read_json_object
from genloop.rundir import write_json
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.tables import scheduler_table
from genloop.training.guards.build import guard_over
from genloop.training.loop import train
from genloop.training.objectives.student.base import StudentObjective
from genloop.training.student.facts import kohya_facts

LORA = "lora"
_SOURCE = "_name_or_path"


def train_student_to_checkpoint(
    objective: StudentObjective,
    adapted: Mapping[str, Any],
    keys: Any,
    world: World,
    *,
    resolve: Resolve,
    device: str,
    name: str,
) -> None:
    """adapted: by component what `build_student` gave; without any the whole pipeline is written, to RUN/`name`."""
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
        lora = {component: adapted_layers(model, "model.") for component, model in adapted.items()}
        base = objective.model.base
        title = f"{base.folder.name}-{keys.objective}"
        facts = kohya_facts(keys, objective.data.examples, objective.num_held_out)
        write_lora(keys.out / LORA, lora, base, title=title, training=facts)
    else:
        save_pipeline(denoiser.pipeline, keys.out / name, dtype=keys.saved_dtype)


def save_pipeline(pipeline: Any, folder: Path, *, dtype: DType) -> None:
    """A whole folder of diffusers with weights of a type, which appears at once."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.to(getattr(torch, dtype))
    with whole_folder(folder) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)
        for path in temporary.rglob("*.json"):
            if _SOURCE in (found := read_json_object(path)):  # where the base lay on this machine
                write_json(path, {key: value for key, value in found.items() if key != _SOURCE})
