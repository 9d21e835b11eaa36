"""AdamW and the schedules of its learning rate: the one optimiser of all training jobs."""

import math
from collections.abc import Callable

import torch
from torch import nn

from genloop.training.settings import LoopSettings

LR_SCALE = "lr_scale"  # a key of the optimizer's groups


def build_optimizer(
    model: nn.Module, settings: LoopSettings, lr_scale_of: Callable[[str], float] = lambda name: 1.0
) -> torch.optim.AdamW:
    """AdamW over the parameters that want a gradient; weight decay on matrices and kernels only.

    `lr_scale_of` maps a parameter's name to the factor on its learning rate; default: 1 for all.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((lr_scale_of(name), parameter.ndim < 2), []).append(parameter)
    parts = [
        {"params": members, "weight_decay": 0.0 if is_vector else settings.weight_decay, LR_SCALE: scale}
        for (scale, is_vector), members in sorted(groups.items(), key=lambda group: group[0])
    ]
    return torch.optim.AdamW(parts, lr=settings.lr, betas=settings.betas, foreach=True)


def learning_rate(step: int, settings: LoopSettings) -> float:
    """The rate of step 1..num_steps: linear warm-up times a schedule from `lr` down to `min_lr` of it."""
    warm = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    progress = min(1.0, (step - 1) / max(1, settings.num_steps - 1))
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return settings.lr * warm * (settings.min_lr + (1 - settings.min_lr) * left[settings.schedule])
