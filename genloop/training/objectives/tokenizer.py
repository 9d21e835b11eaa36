"""Training of MAGVIT-v2 with lookup-free quantisation (Yu et al. 2024): reconstruction, commitment, entropy.

The adversarial and perceptual terms of the paper are left out. B = rows, z = bits, K = 2^z codes, N = B * h * w tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.data.image_reader import sample_pixels
from genloop.data.order import Order
from genloop.data.shards import Shards
from genloop.models.common.footprint import kind_of
from genloop.models.magvit2.model import MagvitV2
from genloop.training.settings import ReconstructionWeights
from genloop.training.task import Loss, Objective, Plan


class Reconstruction(Objective[int, Tensor]):
    """Items are numbers of samples, a batch their pixels (B, 3, H, W) in [0, 1], of the model's resolution."""

    model: MagvitV2

    def __init__(
        self, model: MagvitV2, shards: Shards, weights: ReconstructionWeights, *, seed: int, batch_size: int
    ) -> None:
        self.model, self.shards, self.weights, self.batch_size = model, shards, weights, batch_size
        self._order = Order(shards.sizes, seed)

    def plan(self, step: int) -> Plan[int]:
        """The samples of a step; each weighs 1."""
        return Plan(self._order.rows(step, self.batch_size), float(self.batch_size))

    def load(self, items: Sequence[int], plan: Plan[int]) -> Tensor:
        """Decode the PNGs of some samples."""
        return read_pixels(self.shards, items, self.model.config.resolution)

    def loss(self, batch: Tensor) -> Loss:
        """Sum over rows of the weighted terms; gradients pass straight through the signs.

        The diversity half of the entropy term looks at all rows of this call together.
        """
        pixels = batch * 2 - 1
        latent = self.model.encoder(pixels)  # (B, z, h, w)
        signs = torch.where(latent > 0, 1.0, -1.0)
        decoded = self.model.decoder(latent + (signs - latent).detach())
        error = decoded - pixels
        squared = error.square().mean(dim=(1, 2, 3)).sum()
        absolute = error.abs().mean(dim=(1, 2, 3)).sum()
        commitment = (latent - signs).square().mean(dim=(1, 2, 3)).sum()
        with torch.autocast(kind_of(latent.device), enabled=False):  # a softmax over all codes wants float32
            sure, diverse = code_entropy(latent.float(), self.model.quantize.embedding, self.weights.temperature)
        rows = len(batch)
        total = (
            squared + absolute + self.weights.commitment * commitment + self.weights.entropy * rows * (sure - diverse)
        )
        mean = {"mse": squared, "commitment": commitment, "sure": rows * sure, "diverse": rows * diverse}
        return Loss(total, float(rows), {name: float(value.detach()) for name, value in mean.items()})


def read_pixels(shards: Shards, rows: Sequence[int], side: int) -> Tensor:
    """Decode the PNGs of some samples, `side` pixels wide and high -> (B, 3, side, side) in [0, 1]"""
    stack = np.stack([sample_pixels(shards.read(row, ("png",)), side) for row in rows])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255


def code_entropy(latent: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """latent (B, z, h, w), codebook (K, z) -> mean entropy of a soft code, entropy of the mean soft code (nats).

    Soft codes are a softmax of the inner products, so bits are independent: the first is a sum over bits.
    """
    z = latent.movedim(1, -1).flatten(0, 2)  # (N, z)
    bit = torch.sigmoid(2 * z / temperature)
    sure = -(bit * F.logsigmoid(2 * z / temperature) + (1 - bit) * F.logsigmoid(-2 * z / temperature)).sum(dim=1).mean()
    mean = (z @ codebook.T / temperature).softmax(dim=1).mean(dim=0)  # (K,)
    return sure, -(mean * mean.clamp_min(1e-12).log()).sum()
