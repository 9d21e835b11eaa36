"""A student learns to prefer the teacher's images to its own: Diffusion-DPO (Wallace et al. 2023). B = pairs.

Both images of a pair are noised alike, at the same timestep. -err / 2 stands for the log-probability, err being the
mean squared error of a latent, so z = -beta / 2 ((err_w - ref_w) - (err_l - ref_l)): the terms are those of DPO on
tokens (preference/losses.py) with one draw a step. The reference is the base.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.student import Texts
from genloop.rundir import RunFailed
from genloop.training.loading import mapped
from genloop.training.objectives.preference.losses import PairTerms, pair_terms
from genloop.training.objectives.student.base import LatentRows, NoisyRow, StudentObjective
from genloop.training.objectives.student.data import PairData
from genloop.training.objectives.student.frozen import FrozenUnet, check_unet_alone
from genloop.training.task import Plan

_TESTED = 4  # pairs of step 1 that the self-test looks at
_TOLERANCE = 1e-6  # of a squared error


@dataclass(frozen=True, slots=True)
class LatentPairs(LatentRows):
    """A batch whose latents are the chosen ones."""

    rejected: Tensor  # (B, C, h, w)


class ImagePreference(StudentObjective):
    """-log sigmoid(z) of pairs; metrics `margin` (z) and `accuracy`, where a margin of 0 counts half."""

    held_out_parts = ("margin", "accuracy")

    @classmethod
    def check(cls, keys: Any, base: DiffusionFolder) -> None:
        """There are images to reject, and the UNet alone learns."""
        check_unet_alone(keys)
        if keys.dpo.rejected is None:
            raise ValueError(
                "dpo.rejected: objective=dpo needs shards of the student's own images; generate draws them"
            )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.reference = FrozenUnet.of(self.model, self.keys.weights)

    def load(self, items: Sequence[NoisyRow], plan: Plan[NoisyRow]) -> LatentRows:
        """See `StudentObjective.load`."""
        rows, data = super().load(items, plan), cast(PairData, self.data)
        known = {field.name: getattr(rows, field.name) for field in fields(rows)}
        rejected = torch.stack([self._drawn(item, *data.rejected_latent(item.position)) for item in items])
        return LatentPairs(**known, rejected=rejected)

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and `margin`, `accuracy`, `chosen_error`, `rejected_error` (B,) each."""
        terms, errors = self._terms(cast(LatentPairs, batch))
        margin = terms.margin.detach()
        parts = {"margin": margin, "accuracy": (margin.sign() + 1) / 2}
        return terms.dpo, parts | {"chosen_error": errors[:, 0], "rejected_error": errors[:, 1]}

    def before_training(self, step: int) -> Mapping[str, Any] | None:
        """Before step 1 the student is its reference, so that margins are 0; RunFailed when they are not."""
        found = super().before_training(step)
        if step:
            return found
        plan, device = self.plan(1), next(self.model.parameters()).device
        batch = mapped(self.load(plan.items[:_TESTED], plan), lambda tensor: tensor.to(device))
        with torch.no_grad():
            terms, _ = self._terms(cast(LatentPairs, batch))
        largest = float(terms.margin.abs().max())
        if not largest <= self.keys.dpo.beta * _TOLERANCE:
            raise RunFailed(f"before step 1 a pair has a margin of {largest:g} over the reference, expected 0")
        return {**(found or {}), "self_test_margin": largest}

    def _terms(self, rows: LatentPairs) -> tuple[PairTerms, Tensor]:
        """The terms of DPO, and the student's squared errors (B, 2), chosen first."""
        texts, schedule = self.texts(rows), self.model.schedule
        twice = [torch.cat([given, given]) for given in (rows.noise, rows.timesteps, rows.time_ids)]
        noise, timesteps, time_ids = twice
        both = Texts(torch.cat([texts.embeddings] * 2), None if texts.pooled is None else torch.cat([texts.pooled] * 2))
        latents = torch.cat([rows.latents, rows.rejected])
        noised, target = schedule.noised(latents, noise, timesteps), schedule.target(latents, noise, timesteps)
        policy = _errors(self.model.predict(noised, timesteps, both, time_ids), target)
        base = _errors(self.reference.predict(self.model, noised, timesteps, both, time_ids), target)
        wanted = torch.zeros_like(policy[:, 0])
        terms = pair_terms(-policy[:, None] / 2, -base[:, None] / 2, beta=self.keys.dpo.beta, wanted_margin=wanted)
        return terms, policy.detach()


def _errors(output: Tensor, target: Tensor) -> Tensor:
    """(2B, C, h, w), chosen before rejected -> mean squared errors (B, 2)"""
    return torch.stack((output - target).square().mean(dim=(1, 2, 3)).chunk(2), dim=1)
