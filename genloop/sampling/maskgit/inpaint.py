"""Inpainting with MaskGIT: keep the tokens outside a hole, draw the ones inside (Show-o's t2i inpainting).

B = images, H, W = pixels, n = tokens of the model's grid.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler, MaskGitState


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


def inpaint(
    sampler: MaskGitSampler, prompts: Sequence[Prompt], seeds: Sequence[Seed], images: Tensor, holes: Tensor
) -> MaskGitState:
    """images (B, 3, H, W) in [0, 1], holes (B, H, W) in [0, 1] -> the finished paths.

    As published, the schedule counts all n tokens: small holes are filled one token a step at first. For a schedule
    over the hole alone, `sampler.remask` a state of the whole image.
    """
    codes = sampler.tokenizer.encode(images)
    if codes.shape[1] != sampler.grid[0] * sampler.grid[1]:
        raise ValueError(
            f"images of {images.shape[2]}x{images.shape[3]} pixels make {codes.shape[1]} tokens, "
            f"the model has a grid of {sampler.grid[0]}x{sampler.grid[1]}; use fit_square"
        )
    return fill(sampler, prompts, seeds, codes.masked_fill(hole_tokens(holes, sampler.grid), sampler.mask_code))


def fill(
    sampler: MaskGitSampler, prompts: Sequence[Prompt], seeds: Sequence[Seed], known: Tensor, *, round: int = 0
) -> MaskGitState:
    """known (B, n) with `mask_code` where to draw -> the finished paths."""
    state = sampler.start(prompts, seeds, known, round=round)
    for _ in range(sampler.num_steps):
        state = sampler.step(state)
    return state
