"""Config keys of every training job. No torch."""

from typing import Annotated

from pydantic import Field

from genloop.config import LAUNCH, Device, Settings


class TrainSettings(Settings):
    """How long, how fast, how often to save. The loss at a step does not depend on the launch settings or ranks."""

    num_steps: int = Field(1000, ge=1, description="optimiser steps of the whole run; the learning rate ends there")
    batch_size: int = Field(32, ge=1, description="rows in a step, over all ranks together")
    lr: float = Field(1e-3, gt=0, description="highest learning rate")
    min_lr: float = Field(0.05, ge=0, le=1, description="learning rate at the end, as a share of the highest")
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.01, ge=0, description="on matrices only")
    betas: tuple[float, float] = (0.9, 0.98)
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    save_every: int = Field(500, ge=1, description="steps between two checkpoints")
    keep: Annotated[int, LAUNCH] = Field(2, ge=1, description="checkpoints that stay on disk")
    log_every: int = Field(50, ge=1, description="steps between two lines of metrics.jsonl")
    rows_per_forward: Annotated[int, LAUNCH] = Field(1024, ge=1, description="rows of a rank in one forward pass")
    threads: int = Field(1, ge=1, description="CPU threads of a rank")
    device: Device = "auto"
