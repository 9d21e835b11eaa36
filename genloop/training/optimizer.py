"""AdamW with a warm-up and a cosine: the one optimiser of all training jobs."""

import math

import torch
from torch import nn

from genloop.training.settings import TrainSettings


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that want a gradient; weight decay on matrices and kernels only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, foreach=True)


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The rate of step 1..num_steps: linear warm-up times a cosine from `lr` down to `min_lr` of it."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    progress = min(1.0, (step - 1) / max(1, settings.num_steps - 1))
    cosine = settings.min_lr + (1 - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))
    return settings.lr * warm * cosine
