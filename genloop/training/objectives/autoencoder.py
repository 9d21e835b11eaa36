"""Training of a KL autoencoder (Kingma and Welling 2014, Rombach et al. 2022): reconstruction and divergence.

The adversarial and perceptual terms of latent diffusion are left out. B = rows, C, h, w = channels and sides of a
latent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.data.order import Order
from genloop.data.shards import Shards
from genloop.records import Seed
from genloop.sampling.noise import gaussian
from genloop.training.objectives.tokenizer import read_pixels
from genloop.training.task import Loss, Objective, Plan

PixelsAndNoise = tuple[Tensor, Tensor]  # (B, 3, H, W) in [0, 1], (B, C, h, w)


class Autoencoding(Objective[int, PixelsAndNoise]):
    """Items are numbers of samples."""

    model: Any  # an AutoencoderKL of diffusers

    def __init__(self, model: Any, shards: Shards, *, kl: float, seed: int, batch_size: int) -> None:
        """kl: weight of the divergence, a mean over latents; the reconstruction, a mean over pixels, counts 1."""
        self.model, self.shards, self.kl, self.seed, self.batch_size = model, shards, kl, seed, batch_size
        self._order = Order(shards.sizes, seed)
        config = model.config
        self._side: int = config.sample_size
        grid = self._side // 2 ** (len(config.block_out_channels) - 1)
        self._latent = (config.latent_channels, grid, grid)

    def plan(self, step: int) -> Plan[int]:
        """The samples of a step; each weighs 1."""
        return Plan(self._order.rows(step, self.batch_size), float(self.batch_size), shared=step)

    def load(self, items: Sequence[int], plan: Plan[int]) -> PixelsAndNoise:
        """Decode the PNGs of some samples and draw noise, keyed by (seed, step, sample)."""
        noise = [
            gaussian(Seed(self.seed, row, 0, 0), self._latent, step=plan.shared, round=0, purpose="train/latent")
            for row in items
        ]
        return read_pixels(self.shards, items, self._side), torch.stack(noise)

    def loss(self, batch: PixelsAndNoise) -> Loss:
        """Sum over rows of squared and absolute errors in [-1, 1] and of the weighted divergence."""
        pixels, noise = batch[0] * 2 - 1, batch[1]
        found = self.model.encode(pixels).latent_dist
        decoded = self.model.decode(found.mean + found.std * noise).sample
        error = decoded - pixels
        squared = error.square().mean(dim=(1, 2, 3)).sum()
        absolute = error.abs().mean(dim=(1, 2, 3)).sum()
        divergence = found.kl().sum() / noise[0].numel()
        parts = {"mse": float(squared.detach()), "divergence": float(divergence.detach())}
        return Loss(squared + absolute + self.kl * divergence, float(len(pixels)), parts)


@torch.no_grad()
def scaling_factor(model: Any, shards: Shards, rows: Sequence[int], *, rows_per_pass: int) -> float:
    """1 / the standard deviation of the latents of some samples: what latents are multiplied by for diffusion."""
    device, latents = next(model.parameters()).device, []
    for start in range(0, len(rows), rows_per_pass):
        pixels = read_pixels(shards, rows[start : start + rows_per_pass], model.config.sample_size) * 2 - 1
        latents.append(model.encode(pixels.to(device)).latent_dist.mean.float())
    return 1 / float(torch.cat(latents).std())
