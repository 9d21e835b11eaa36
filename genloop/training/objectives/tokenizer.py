"""Training of MAGVIT-v2 with lookup-free quantisation (Yu et al. 2024): reconstruction, commitment, entropy.

The adversarial and perceptual terms of the paper are left out. B = rows, z = bits, K = 2^z codes, N = B * h * w tokens.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.data.shards import Sample, Shards
from genloop.models.magvit2.model import MagvitV2
from genloop.training.objectives.masked_tokens import Order
from genloop.training.task import Loss

PIXELS = "png"


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the terms; the reconstruction counts 1."""

    commitment: float = 0.1
    entropy: float = 0.05
    temperature: float = 0.1  # of the soft assignment to codes in the entropy term


class PixelRows:
    """`rows(step)` names the samples of a step; `images(...)` reads some of them, (B, 3, H, W) in [0, 1]."""

    def __init__(self, shards: Shards, *, seed: int, batch_size: int) -> None:
        self.shards, self.batch_size = shards, batch_size
        self._order = Order(len(shards), seed)

    def rows(self, step: int) -> list[int]:
        """The samples of step 1, 2, ..."""
        return self._order.rows(step, self.batch_size)

    def images(self, rows: Sequence[int]) -> Tensor:
        """Decode the PNGs of these samples; they must have one size."""
        stack = np.stack([read_png(self.shards[row]) for row in rows])
        return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


def read_png(sample: Sample) -> np.ndarray:
    """The pixels of a sample, (H, W, 3) uint8; ValueError names a sample without any."""
    from PIL import Image

    if PIXELS not in sample.fields:
        raise ValueError(f"sample {sample.key} has {', '.join(sample.fields)}; training needs {PIXELS}")
    with Image.open(io.BytesIO(sample.fields[PIXELS])) as image:
        return np.asarray(image.convert("RGB"))


def reconstruction_loss(model: MagvitV2, images: Tensor, weights: LossWeights) -> Loss:
    """images (B, 3, H, W) in [0, 1] -> sum over rows of the weighted terms; gradients pass straight through the signs.

    The diversity half of the entropy term looks at all rows of this call together.
    """
    pixels = images * 2 - 1
    latent = model.encoder(pixels)  # (B, z, h, w)
    signs = torch.where(latent > 0, 1.0, -1.0)
    decoded = model.decoder(latent + (signs - latent).detach())
    error = decoded - pixels
    squared = error.square().mean(dim=(1, 2, 3)).sum()
    absolute = error.abs().mean(dim=(1, 2, 3)).sum()
    commitment = (latent - signs).square().mean(dim=(1, 2, 3)).sum()
    sure, diverse = code_entropy(latent, model.quantize.embedding, weights.temperature)
    rows = len(images)
    total = squared + absolute + weights.commitment * commitment + weights.entropy * rows * (sure - diverse)
    mean = {"mse": squared, "commitment": commitment, "sure": rows * sure, "diverse": rows * diverse}
    return Loss(total, float(rows), {name: float(value.detach()) for name, value in mean.items()})


def code_entropy(latent: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """latent (B, z, h, w), codebook (K, z) -> mean entropy of a soft code, entropy of the mean soft code (nats).

    Soft codes are a softmax of the inner products, so bits are independent: the first is a sum over bits.
    """
    z = latent.movedim(1, -1).flatten(0, 2)  # (N, z)
    bit = torch.sigmoid(2 * z / temperature)
    sure = -(bit * F.logsigmoid(2 * z / temperature) + (1 - bit) * F.logsigmoid(-2 * z / temperature)).sum(dim=1).mean()
    mean = (z @ codebook.T / temperature).softmax(dim=1).mean(dim=0)  # (K,)
    return sure, -(mean * mean.clamp_min(1e-12).log()).sum()
