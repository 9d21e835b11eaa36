"""A diffusion model that also has to look right: squared error plus perceptual distances of what it would decode to.

    loss = error of the output + abar_t * sum of factor * distance(decode(x_0 predicted), decode(x_0))

x_0 is predicted from x_t and the output. At little signal it is no image yet and 1 / sqrt(abar_t) is large, so rows
weigh abar_t, the share of signal, and those below `perceptual.min_signal` decode nothing. Both latents are decoded by
the frozen VAE, which gradients pass through; a square cut at a keyed place stands for the whole, to save time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genloop.data.latents.buckets import bucket_sizes
from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.load import decode_latents
from genloop.models.perceptual.config import LEAST_SIDE
from genloop.models.perceptual.features import (
    WINDOW,
    ConvPyramid,
    encoder_features,
    feature_distance,
    ms_ssim_distance,
)
from genloop.models.perceptual.load import load_lpips, needed
from genloop.training.objectives.student.base import LatentRows, NoisyRow, StudentObjective
from genloop.training.task import Plan


@dataclass(frozen=True, slots=True)
class DecodedRows(LatentRows):
    """A batch some rows of which are decoded."""

    cuts: tuple[tuple[int, int, int], ...]  # row, top and left cell


class PerceptualLoss(StudentObjective):
    """Metrics `mse`, `perceptual` (weighted, over all rows) and each distance that counts, weighted by abar alone."""

    held_out_parts = ("mse", "perceptual")
    decodes = True

    @classmethod
    def check(cls, keys: Any, base: DiffusionFolder) -> None:
        """Something is compared, its files are there, and what is decoded is large enough for it."""
        own = keys.perceptual
        if not (factors := own.factors()):
            raise ValueError("perceptual: every factor is 0; use objective=sft")
        sizes = bucket_sizes(keys.side(base), keys.bucket_step)
        shortest = min(min(size) for size in sizes) // base.factor
        if own.crop is not None and own.crop > shortest:
            raise ValueError(f"perceptual.crop: {own.crop} cells are more than the {shortest} of the smallest bucket")
        pixels = (own.crop or shortest) * base.factor
        for name, least in (("ms_ssim", WINDOW), ("lpips", LEAST_SIDE)):
            if name in factors and pixels < least:
                raise ValueError(f"perceptual.{name}: needs {least} pixels on a side, decoded are {pixels}")
        if "lpips" in factors:
            needed("lpips", own.weights.given(), key="perceptual.weights")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        own, device = self.keys.perceptual, next(self.model.parameters()).device
        self._factors: dict[str, float] = own.factors()
        self._vae: Any = self.model.denoiser.pipeline.vae
        self._signal = self.model.schedule.kept  # (timesteps,)
        self._pyramid = ConvPyramid(self.seed).to(device) if "pyramid" in self._factors else None
        self._lpips = None
        if "lpips" in self._factors:
            self._lpips = load_lpips(needed("lpips", own.weights.given(), key="perceptual.weights"), str(device))

    def load(self, items: Sequence[NoisyRow], plan: Plan[NoisyRow]) -> LatentRows:
        """See `StudentObjective.load`."""
        rows = super().load(items, plan)
        height, width = rows.latents.shape[2:]
        cuts = tuple(
            (row, *self._corner(item, height, width))
            for row, item in enumerate(items)
            if self._signal[item.timestep] >= self.keys.perceptual.min_signal
        )
        return DecodedRows(**{field.name: getattr(rows, field.name) for field in fields(rows)}, cuts=cuts)

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and the parts of the loss (B,) each."""
        schedule, (noised, output, errors) = self.model.schedule, self.predicted(batch)
        clean, _ = schedule.split(noised, output, batch.timesteps)
        distances = self._distances(cast(DecodedRows, batch), clean)
        perceptual = torch.stack([self._factors[name] * found for name, found in distances.items()]).sum(0)
        losses = schedule.weights(batch.timesteps, self.keys.snr_gamma) * errors + perceptual
        return losses, {"mse": errors, "perceptual": perceptual, **distances}

    def _distances(self, batch: DecodedRows, clean: Tensor) -> dict[str, Tensor]:
        """Predicted latents (B, C, h, w) -> of each distance abar times its value, (B,); 0 of rows without a cut."""
        nothing = clean.new_zeros(len(clean))
        if not batch.cuts:
            return dict.fromkeys(self._factors, nothing)
        ours = decode_latents(self._vae, self._cut(clean, batch.cuts))
        with torch.no_grad():
            theirs = decode_latents(self._vae, self._cut(batch.latents, batch.cuts))
        rows = torch.tensor([row for row, *_ in batch.cuts], device=clean.device)
        signal = self._signal.to(clean.device)[batch.timesteps[rows]]
        return {name: nothing.index_add(0, rows, signal * self._distance(name, ours, theirs)) for name in self._factors}

    def _distance(self, name: str, ours: Tensor, theirs: Tensor) -> Tensor:
        """Images (R, 3, H, W) twice -> (R,) float32"""
        if name == "ms_ssim":
            return ms_ssim_distance(ours, theirs)
        if name == "lpips":
            assert self._lpips is not None
            pairs = torch.stack([ours, theirs], dim=1) / 2 + 0.5
            return torch.stack([self._lpips.distance(pair) for pair in pairs.clamp(0, 1)])
        features = self._pyramid if name == "pyramid" else lambda images: encoder_features(self._vae, images)
        assert features is not None
        with torch.no_grad():
            wanted = features(theirs)
        return feature_distance(features(ours), wanted)

    def _cut(self, latents: Tensor, cuts: Sequence[tuple[int, int, int]]) -> Tensor:
        """(B, C, h, w) -> (R, C, s, s), of each cut one"""
        side: int | None = self.keys.perceptual.crop
        if side is None:
            return latents[[row for row, *_ in cuts]]
        return torch.stack([latents[row, :, top : top + side, left : left + side] for row, top, left in cuts])

    def _corner(self, item: NoisyRow, height: int, width: int) -> tuple[int, int]:
        """Where a square of a row's latent is cut."""
        side: int | None = self.keys.perceptual.crop
        if side is None:
            return 0, 0
        rng = np.random.default_rng([self.seed, 7, item.step, item.place])
        top, left = rng.integers((height - side + 1, width - side + 1)).tolist()
        return top, left
