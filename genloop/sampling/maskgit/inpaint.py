"""Inpainting with MaskGIT: keep the tokens outside a hole, draw the ones inside (Show-o's t2i inpainting).

B = images, H, W = pixels, n = tokens of the model's grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.protocols import Sampler
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.state import MaskGitState
from genloop.sampling.modes import ReadGiven

_REMEMBERED = 1024  # images whose tokens are kept, as their candidates come one after the other


def inpainting(sampler: MaskGitSampler, options: Any, given: ReadGiven) -> tuple[Sampler[Any], None]:
    """mode=inpaint: a sampler whose paths begin with the tokens around the hole; every strategy searches with it."""

    def known(index: int) -> Tensor:
        image, hole = given(index)
        assert hole is not None
        codes = encode_square(sampler, image)
        holes = fit_square(np.stack([hole] * 3, axis=2), pixel_side(sampler))[:1]
        drop = hole_tokens(holes, sampler.grid)[0].to(codes.device)
        if not drop.any():
            raise ValueError("the mask is too small: no token has half of its area in the hole")
        return codes.masked_fill(drop, sampler.mask_code)

    return InpaintingSampler(sampler, lru_cache(_REMEMBERED)(known)), None


class InpaintingSampler(MaskGitSampler):
    """Draws the holes of images; what is around them stays, whatever a strategy reopens."""

    def __init__(self, sampler: MaskGitSampler, known: Callable[[int], Tensor]) -> None:
        """known: the index of a prompt -> its tokens (n,), `mask_code` where to draw."""
        super().__init__(
            sampler.model,
            sampler.tokenizer,
            sampler.settings,
            rows_per_forward=sampler.rows_per_forward,
            slots=sampler.slots,
            before_step=sampler.before_step,
            noise=sampler.noise,
        )
        self.known = known

    def start(
        self, prompts: Sequence[Prompt], seeds: Sequence[Seed], known: Tensor | None = None, *, round: int = 0
    ) -> MaskGitState:
        """One row for each (prompt, seed) pair, masked where its image has its hole."""
        if known is None:
            known = torch.stack([self.known(prompt.index) for prompt in prompts])
        return super().start(prompts, seeds, known, round=round)

    def remask(self, state: MaskGitState, drop: Tensor, num_steps: int) -> MaskGitState:
        """As of any sampler, inside of the holes alone."""
        return super().remask(state, drop.to(state.tokens.device) & self._holes(state), num_steps)

    def correct(self, state: MaskGitState, prompts: Sequence[Prompt], reasons: Sequence[str]) -> MaskGitState:
        """As of any sampler, inside of the holes alone."""
        again, holes = super().correct(state, prompts, reasons), self._holes(state)
        tokens = torch.where(holes, again.tokens, state.tokens)
        revealed_at = torch.where(holes, again.revealed_at, state.revealed_at)
        return replace(again, tokens=tokens, guess=tokens, revealed_at=revealed_at)

    def _holes(self, state: MaskGitState) -> Tensor:
        """True (B, n) for the tokens to draw."""
        known = torch.stack([self.known(seed.prompt) for seed in state.seeds])
        return (known == self.mask_code).to(state.tokens.device)


def encode_square(sampler: MaskGitSampler, image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> the tokens (n,) of its middle square; encoded by itself, so that nothing beside it matters."""
    pixels = fit_square(image, pixel_side(sampler))
    return sampler.tokenizer.encode(pixels[None].to(sampler.model.device))[0]


@lru_cache(8)
def pixel_side(sampler: MaskGitSampler) -> int:
    """Width of the images that a sampler makes."""
    codes = torch.zeros(1, sampler.grid[0] * sampler.grid[1], dtype=torch.int64, device=sampler.model.device)
    return int(sampler.decode(codes).shape[3])


def fit_square(image: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, side, side) in [0, 1]: short side resized (bicubic), centre cropped."""
    from PIL import Image

    height, width = image.shape[:2]
    short = min(height, width)
    size = (int(side * width / short), int(side * height / short))
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    cropped = np.asarray(resized.crop((left, top, left + side, top + side)))
    return torch.from_numpy(cropped.copy()).permute(2, 0, 1).float() / 255


def hole_tokens(holes: Tensor, grid: tuple[int, int]) -> Tensor:
    """holes (B, H, W) in [0, 1], 1 where to paint -> (B, n) bool, True for the tokens to draw."""
    small = torch.nn.functional.interpolate(holes[:, None].float(), size=grid, mode="bicubic")
    return (small[:, 0] >= 0.5).flatten(1)


def fill(
    sampler: MaskGitSampler, prompts: Sequence[Prompt], seeds: Sequence[Seed], known: Tensor, *, round: int = 0
) -> MaskGitState:
    """known (B, n) with `mask_code` where to draw -> the finished paths."""
    state = sampler.start(prompts, seeds, known, round=round)
    for _ in range(sampler.num_steps):
        state = sampler.step(state)
    return state
