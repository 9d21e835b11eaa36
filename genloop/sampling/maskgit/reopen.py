"""Reopen finished images at one of their own steps and draw the rest again: two images that share a prefix.

The tokens that were fixed before the step stay, the others are masked and drawn by a schedule over them alone.
B = rows, n = image tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler


class Reopened(NamedTuple):
    """The images as they were continued."""

    codes: np.ndarray  # (B, n) int64
    kept: np.ndarray  # (B, n) bool: fixed before the image was reopened
    steps: np.ndarray  # (B, n) int64: that fixed each token; those drawn again count on from the step of the reopening


def reopen(
    sampler: MaskGitSampler,
    prompts: Sequence[Prompt],
    seeds: Sequence[Seed],
    codes: np.ndarray,
    steps: np.ndarray,
    at: np.ndarray,
    *,
    num_steps: int,
) -> Reopened:
    """Continue images from before step `at` (B,) in `num_steps` steps, with the noise of `seeds`.

    codes (B, n) of finished images; steps (B, n), from 0, that fixed each token. ValueError where none is left to draw.
    """
    kept = steps < at[:, None]
    if (done := kept.all(axis=1)).any():
        raise ValueError(f"step {at[done][0]}: all tokens of the image were fixed before it")
    known = torch.from_numpy(np.where(kept, codes, sampler.mask_code))
    state = sampler.remask(sampler.start(prompts, seeds, known), torch.from_numpy(~kept), num_steps)
    for _ in range(num_steps):
        state = sampler.step(state)
    drawn = state.revealed_at.cpu().numpy()
    return Reopened(state.tokens.cpu().numpy(), kept, np.where(kept, steps, at[:, None] + drawn))
