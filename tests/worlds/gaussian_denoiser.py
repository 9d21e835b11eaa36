"""A denoiser whose every answer is known: latents are Gaussian around a mean that the text decides. No weights.

With x = alpha x0 + sigma eps and x0 ~ N(mean, SPREAD^2) the best prediction of x0 is linear in x, and the path of a
solver with infinitely many steps from noise z ends in mean + SPREAD z'.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genloop.models.diffusion.denoiser import Condition
from genloop.sampling.diffusion.solvers import Levels

SPREAD = 0.5
KEPT = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)  # of Stable Diffusion


class GaussianDenoiser:
    """Implements `genloop.models.diffusion.denoiser.Denoiser`."""

    channels = 2
    grid = (4, 4)
    device = torch.device("cpu")
    flops_per_pass = 10.0
    flops_per_decode = 1.0

    def encode(self, text: str | None) -> Condition:
        return Condition(torch.tensor([[mean_of(text)]], dtype=torch.float64))

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """eps of the latents as diffusers' networks see them: alpha^2 + sigma^2 = 1."""
        mean = torch.cat([condition.embeddings for condition in conditions]).view(-1, 1, 1, 1)
        kept = torch.from_numpy(np.interp(timesteps.double().numpy(), np.arange(1000), KEPT)).view(-1, 1, 1, 1)
        alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
        surprise = latents.double() - alpha * mean
        x0 = mean + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * surprise
        return ((latents.double() - alpha * x0) / sigma).float()

    def decode(self, latents: Tensor) -> Tensor:
        pixels = torch.cat([latents, latents.mean(1, keepdim=True)], 1).sigmoid()
        return pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)


def mean_of(text: str | None) -> float:
    return int.from_bytes(hashlib.blake2b((text or "").encode(), digest_size=1).digest(), "little") / 128 - 1


def levels(num_steps: int, *, grows: bool = False) -> Levels:
    """The levels of `num_steps` evenly spaced timesteps; `grows`: alpha stays 1 and sigma grows, as Euler has it."""
    timesteps = np.linspace(999, 999 / num_steps, num_steps).round()
    before = KEPT[timesteps.astype(int)]
    behind = np.append(before[1:], 1.0)
    parts = [np.sqrt(before), np.sqrt(1 - before), np.sqrt(behind), np.sqrt(1 - behind)]
    if not grows:
        return Levels(timesteps, *parts, 1.0, scales=False)
    ones = np.ones(num_steps)
    start = float(np.hypot(1, parts[1] / parts[0])[0])
    return Levels(timesteps, ones, parts[1] / parts[0], ones, parts[3] / parts[2], start, scales=True)


def even_levels(num_steps: int) -> Levels:
    """Even steps of log(alpha / sigma) from timestep 900 to 100, where a path is still noisy: orders show there."""
    ends = [np.log(kept / (1 - kept)) / 2 for kept in (KEPT[900], KEPT[100])]
    kept = 1 / (1 + np.exp(-2 * np.linspace(*ends, num_steps + 1)))
    timesteps = np.interp(-kept, -KEPT, np.arange(1000))
    alpha, sigma = np.sqrt(kept), np.sqrt(1 - kept)
    return Levels(timesteps[:-1], alpha[:-1], sigma[:-1], alpha[1:], sigma[1:], 1.0, scales=False)


def exact_end(noise: Tensor, mean: float, at: Levels) -> Tensor:
    """Where infinitely many steps lead from the noise of a path."""
    x, alpha, sigma = noise.double() * at.start, at.alpha_in[0], at.sigma_in[0]
    likely = (x - alpha * mean) / np.hypot(alpha * SPREAD, sigma)
    return at.alpha_out[-1] * mean + np.hypot(at.alpha_out[-1] * SPREAD, at.sigma_out[-1]) * likely
