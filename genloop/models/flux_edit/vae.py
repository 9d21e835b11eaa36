"""Flux's VAE whose samples have noise of their own, so that what is encoded does not move the noise that is drawn from.

The stock pipelines take the VAE's sample of every picture and control map from the generator that draws the image. So
an image changed with the number of its controls even at strength 0, and rows without a picture of their own shared the
first row's generator. B = pictures.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.registry import require


def with_own_noise(vae: Any) -> Any:
    """The same VAE, of which a sample follows from the picture and the seed of the generator alone."""
    diffusers = require("diffusers", "diffusion")
    posterior = require("diffusers.models.autoencoders.vae").DiagonalGaussianDistribution
    output = require("diffusers.models.modeling_outputs").AutoencoderKLOutput

    class OwnNoisePosterior(posterior):  # type: ignore[misc, valid-type]
        """A normal distribution for each cell of a latent."""

        def sample(self, generator: Any = None) -> Tensor:
            """generator: one for all pictures, or one each; it is not drawn from."""
            assert generator is not None, "a sample needs a seed"
            each = generator if isinstance(generator, Sequence) else [generator] * len(self.mean)
            noise = torch.stack([own_noise(one.initial_seed(), mean.shape) for mean, one in zip(self.mean, each)])
            return self.mean + self.std * noise.to(self.mean)

    class OwnNoiseVae(diffusers.AutoencoderKL):  # type: ignore[name-defined]
        """See the module."""

        def encode(self, x: Tensor, return_dict: bool = True) -> Any:
            """(B, 3, H, W) -> the distribution of its latents"""
            found = OwnNoisePosterior(super().encode(x).latent_dist.parameters)
            return output(latent_dist=found) if return_dict else (found,)

    vae.__class__ = OwnNoiseVae
    return vae


def own_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Normal numbers of a seed, of another stream than those of a generator with this seed."""
    key = hashlib.sha256(f"sample of the VAE {seed}".encode()).digest()
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int.from_bytes(key[:8], "little")))
