"""Which states of a drawn image log-probabilities are taken at, and which tokens count there.

A state is an image with some tokens masked. C = images, S = states of an image, n = image tokens. They are a function
of the settings, the seed and how the image was drawn; policy, old policy and reference see the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genloop.training.objectives.group_policy.settings import GroupPolicySettings
from genloop.training.objectives.masked_tokens import draw_masks


@dataclass(frozen=True, eq=False)
class States:
    """All of one rollout, on the CPU."""

    masked: Tensor  # (C, S, n) bool
    weights: Tensor  # (C, S, n) float32: how much a token counts; 0 for all that are not masked


def states_of(settings: GroupPolicySettings, revealed_at: Tensor, *, num_steps: int, key: list[int]) -> States:
    """revealed_at (C, n): the step, from 0, that fixed each token; `key` seeds what is random."""
    count, n = revealed_at.shape
    if settings.states == "full":
        masked = torch.ones(count, 1, n, dtype=torch.bool)
        return States(masked, torch.full(masked.shape, 1 / n))
    rng = np.random.default_rng(key)
    if settings.states == "masks":
        masked = torch.from_numpy(draw_masks(rng, count * settings.draws, n)).view(count, settings.draws, n)
        return States(masked, masked / masked.sum(2, keepdim=True))
    first = num_steps if settings.critical_steps is None else min(settings.critical_steps, num_steps)
    steps = torch.from_numpy(rng.random((count, first)).argsort(1)[:, : settings.draws])[:, :, None]  # (C, S, 1)
    fixed_at = revealed_at[:, None, :]
    # A token that a step fixed was drawn at that state, so its log-probability is that of a decision that was taken;
    # tokens that were fixed later were drawn at other states. The weights make a sum over steps a mean over tokens.
    return States(fixed_at >= steps, (fixed_at == steps).float() * (first / n))
