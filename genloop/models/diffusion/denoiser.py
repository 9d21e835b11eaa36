"""What a sampler needs of a latent diffusion model.

B = rows, C, h, w = channels and sides of a latent, T, D = tokens and width of a text, H, W = pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """One encoded text: embeddings (1, T, D) and, of SDXL, the pooled embedding (1, P)."""

    embeddings: "Tensor"
    pooled: "Tensor | None" = None


class Denoiser(Protocol):
    """A network that predicts what is noise, the encoder of its texts, the decoder of its latents."""

    channels: int
    grid: tuple[int, int]  # h, w
    device: "torch.device"

    @property
    def flops_per_pass(self) -> float:
        """Of one row through the network, 2 a multiply-add."""

    @property
    def flops_per_decode(self) -> float:
        """Of one latent."""

    def encode(self, text: str | None) -> Condition:
        """A text; None: no text, as the model was trained to go without."""

    def predict(self, latents: "Tensor", timesteps: "Tensor", conditions: Sequence[Condition]) -> "Tensor":
        """latents (B, C, h, w) at timesteps (B,), each with its condition -> the output (B, C, h, w) float32."""

    def decode(self, latents: "Tensor") -> "Tensor":
        """(B, C, h, w) clean latents -> (B, 3, H, W) in [0, 1]."""
