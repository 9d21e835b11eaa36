"""Reopen finished images at one of their own steps and draw the rest again: two images that share a prefix.

The tokens that were fixed before the step stay, the others are masked and drawn by a schedule over them alone.
B = rows, n = image tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from genloop.records import Prompt, Seed, branch_seed
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


@dataclass(frozen=True, slots=True)
class Reopening:
    """Reopens any number of images, `batch` at a time, with noise that follows from their seeds and `key`."""

    sampler: MaskGitSampler
    key: int
    num_steps: int
    batch: int

    def __call__(
        self,
        prompts: Sequence[Prompt],
        seeds: Sequence[Seed],
        codes: np.ndarray,
        steps: np.ndarray,
        at: np.ndarray,
        number: int,
    ) -> Reopened:
        """As `reopen`; `seeds` are those of the images, `number` tells how often they were reopened before."""
        noise = [branch_seed(seed, self.key, step, number) for seed, step in zip(seeds, at.tolist(), strict=True)]
        parts = []
        for part in (slice(start, start + self.batch) for start in range(0, len(prompts), self.batch)):
            given = prompts[part], noise[part], codes[part], steps[part], at[part]
            parts.append(reopen(self.sampler, *given, num_steps=self.num_steps))
        return Reopened(*map(np.concatenate, zip(*parts, strict=True)))

    def rehearse(self, prompts: Sequence[Prompt], codes: np.ndarray, kept: np.ndarray) -> None:
        """Two steps, also on the meta device: they take as much memory as all."""
        seeds = [Seed(0, prompt.index, row, 0) for row, prompt in enumerate(prompts)]
        known = torch.from_numpy(np.where(kept, codes, self.sampler.mask_code))
        state = self.sampler.remask(self.sampler.start(prompts, seeds, known), torch.from_numpy(~kept), self.num_steps)
        for _ in range(min(2, self.num_steps)):
            state = self.sampler.step(state)
