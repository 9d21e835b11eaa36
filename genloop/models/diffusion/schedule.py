"""How noise is added to latents while a diffusion model is trained, and what its network is to predict. B = rows.

x_t = alpha_t x_0 + sigma_t noise with alpha_t^2 + sigma_t^2 = 1 (Ho et al. 2020); v = alpha_t noise - sigma_t x_0
(Salimans & Ho 2022).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genloop.registry import require

_OF_BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


class NoiseSchedule:
    """The levels of a checkpoint's own training, from its scheduler_config.json."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        given = {key: config[key] for key in _OF_BETAS if key in config}
        scheduler = require("diffusers", "diffusion").DDPMScheduler(**given)
        self.kept: Tensor = scheduler.alphas_cumprod.float()  # (T,), alpha^2
        self.predicts_v = config.get("prediction_type", "epsilon") == "v_prediction"
        self.num_timesteps = len(self.kept)

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """timesteps (B,) -> alpha, sigma, each (B, 1, 1, 1) float32 on their device."""
        kept = self.kept.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_0 and noise, both (B, C, h, w) -> x_t"""
        alpha, sigma = self.levels(timesteps)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is to say of x_t: (B, C, h, w)."""
        if not self.predicts_v:
            return noise
        alpha, sigma = self.levels(timesteps)
        return alpha * noise - sigma * latents

    def split(self, noised: Tensor, output: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """x_t and what the network says of it -> x_0 and the noise that follow, (B, C, h, w) each."""
        alpha, sigma = self.levels(timesteps)
        if self.predicts_v:
            return alpha * noised - sigma * output, alpha * output + sigma * noised
        return (noised - sigma * output) / alpha, output

    def weights(self, timesteps: Tensor, gamma: float | None) -> Tensor:
        """Min-SNR weights of rows (Hang et al. 2023): min(SNR, gamma) / SNR for noise, / (SNR + 1) for v; (B,).

        None: 1 for all.
        """
        kept = self.kept.to(timesteps.device)[timesteps]
        if gamma is None:
            return torch.ones_like(kept)
        snr = kept / (1 - kept)
        # min(snr, gamma) / snr, without a division by an SNR of 0
        return (gamma / snr.clamp(min=gamma)) if not self.predicts_v else snr.clamp(max=gamma) / (snr + 1)
