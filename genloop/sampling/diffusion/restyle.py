"""Image-to-image (SDEdit, Meng et al. 2022): noise a given image in part, draw the rest of the way for a text.

At strength s a path takes the last int(s n) of the n steps of its schedule, as diffusers' pipelines do. At 1 it starts
from noise alone, as for a text: those pipelines leave the trace of the image that the first level has.
C, h, w = a latent, H, W = pixels.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.data.latents.buckets import Size, cut, middle_of
from genloop.models.diffusion.load import PipelineDenoiser
from genloop.models.diffusion.student import encode_pixels
from genloop.protocols import Sampler
from genloop.records import Prompt, Seed
from genloop.sampling.diffusion.sampler import DiffusionSampler
from genloop.sampling.diffusion.state import DiffusionState
from genloop.sampling.modes import ReadGiven

_REMEMBERED = 256  # images whose latents are kept, as their candidates come one after the other


def restyling(sampler: DiffusionSampler, options: Any, given: ReadGiven) -> tuple[Sampler[Any], None]:
    """mode=restyle: a sampler whose paths begin with noised images; every strategy searches with it."""
    model = sampler.model
    assert isinstance(model, PipelineDenoiser)

    def latents(index: int) -> Tensor:
        mean, _ = encode_pixels(model, fit(given(index).image, *model.size))
        return torch.from_numpy(mean).to(model.device)

    remembered = lru_cache(_REMEMBERED)(latents)
    return RestylingSampler(sampler, options, remembered, flops=model.flops_per_encode), None


class RestylingSampler(DiffusionSampler):
    """Draws over given images."""

    def __init__(
        self, sampler: DiffusionSampler, options: Any, latents: Callable[[int], Tensor], *, flops: float
    ) -> None:
        """latents: the index of a prompt -> those of its image (C, h, w), encoded by itself for `flops` operations."""
        vars(self).update(vars(sampler))  # weights, tables and settings are those of the sampler for texts
        self.num_steps = options.num_steps(sampler.settings.num_steps)
        self._given = latents if self.num_steps < sampler.settings.num_steps else None
        self.flops_to_begin = flops if self._given is not None else 0.0

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed], given: Tensor | None = None) -> DiffusionState:
        """One row for each (prompt, seed) pair: the prompt's image, noised."""
        if given is None and self._given is not None:
            given = torch.stack([self._given(prompt.index) for prompt in prompts])
        return super().start(prompts, seeds, given)


def fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (height, width, 3) uint8: scaled to fill it (Lanczos), cropped to the middle."""
    return cut(image, middle_of(Size(image.shape[1], image.shape[0]), Size(width, height)))
