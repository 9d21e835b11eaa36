"""A student of few steps: latent consistency distillation (Luo et al. 2023), with adapters LCM-LoRA.

The consistency function f(x_t, t) = c_skip(t) x_t + c_out(t) x0(x_t, t) is to be the same all along a path to x_0. The
teacher, which is the base itself, leads from x_t to x_s, s = t - T / solver_steps, by one step of DDIM under guidance;
the student learns f(x_t, t) = f(x_s, s), its own answer there being constant. Guidance thus ends up in the weights:
images are drawn by sampling.scheduler=lcm in 2 to 8 steps with guidance_scale=1. B = rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genloop.models.diffusion.config import DiffusionFolder
from genloop.models.diffusion.student import Texts
from genloop.training.objectives.student.base import LatentRows, NoisyRow, StudentObjective, stacked
from genloop.training.objectives.student.data import EMBEDDINGS, POOLED
from genloop.training.objectives.student.frozen import FrozenUnet, check_unet_alone
from genloop.training.task import Plan

SIGMA_DATA = 0.5
_SCALING = 10.0  # of timesteps, as diffusers' LCMScheduler has it where a checkpoint says nothing


@dataclass(frozen=True, slots=True)
class GuidedRows(LatentRows):
    """A batch with what guidance needs."""

    guidance: Tensor  # (B,)
    without: Tensor  # (B, T, D): embeddings of no caption
    pooled_without: Tensor | None  # (B, P)


class Consistency(StudentObjective):
    """f at x_t learns f at the teacher's x_s; `teacher_gap` is how far the student is from the teacher's own x0."""

    held_out_parts = ("teacher_gap",)

    @classmethod
    def check(cls, keys: Any, base: DiffusionFolder) -> None:
        """The UNet alone learns; the range of guidance is one."""
        check_unet_alone(keys)
        keys.lcm.check()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.teacher = FrozenUnet.of(self.model, self.keys.weights)
        self._ratio = max(self.model.schedule.num_timesteps // self.keys.lcm.solver_steps, 1)
        self._scaling = float(self.model.base.scheduler.get("timestep_scaling", _SCALING))

    def load(self, items: Sequence[NoisyRow], plan: Plan[NoisyRow]) -> LatentRows:
        """See `StudentObjective.load`; guidance is keyed by step and row."""
        rows, text = super().load(items, plan), self.data.text(None)
        assert text is not None, "the text encoders do not learn"
        known = {field.name: getattr(rows, field.name) for field in fields(rows)}
        texts = [text] * len(items)
        without = stacked(texts, EMBEDDINGS)
        assert without is not None
        guidance = torch.tensor([self._guidance(item) for item in items])
        return GuidedRows(**known, guidance=guidance, without=without, pooled_without=stacked(texts, POOLED))

    def row_losses(self, batch: LatentRows) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(B,), and `teacher_gap` (B,)."""
        rows = cast(GuidedRows, batch)
        schedule, texts = self.model.schedule, self.texts(batch)
        start, end = self.steps_of(rows.timesteps)
        noised = schedule.noised(rows.latents, rows.noise, start)
        answer = self._consistent(noised, start, texts, rows.time_ids)
        with torch.no_grad():
            clean, noise = self._guided(noised, start, texts, rows)
            level = schedule.noised(clean, noise, end)
            target = self._consistent(level, end, texts, rows.time_ids)
            gap = (answer - clean).square().mean(dim=(1, 2, 3))
        return huber(answer - target, self.keys.lcm.huber), {"teacher_gap": gap}

    def steps_of(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Any timesteps (B,) -> t, the solver's timestep of their interval, and s, the one before it; at least 0."""
        last = self.model.schedule.num_timesteps // self._ratio - 1
        start = ((timesteps // self._ratio).clamp(max=last) + 1) * self._ratio - 1
        return start, (start - self._ratio).clamp(min=0)

    def _consistent(self, noised: Tensor, timesteps: Tensor, texts: Texts, time_ids: Tensor) -> Tensor:
        output = self.model.predict(noised, timesteps, texts, time_ids)
        clean, _ = self.model.schedule.split(noised, output, timesteps)
        skip, out = boundary(timesteps, self._scaling)
        return skip * noised + out * clean

    def _guided(self, noised: Tensor, timesteps: Tensor, texts: Texts, rows: GuidedRows) -> tuple[Tensor, Tensor]:
        """x0 and noise that the teacher predicts: without + g (with - without)."""
        both = Texts(
            torch.cat([texts.embeddings, rows.without]),
            None
            if texts.pooled is None or rows.pooled_without is None
            else torch.cat([texts.pooled, rows.pooled_without]),
        )
        twice = (torch.cat([given, given]) for given in (noised, timesteps, rows.time_ids))
        noised2, timesteps2, time_ids = twice
        output = self.teacher.predict(self.model, noised2, timesteps2, both, time_ids)
        found = self.model.schedule.split(noised2, output, timesteps2)
        scale = rows.guidance.view(-1, 1, 1, 1)
        clean, noise = (without + scale * (given - without) for given, without in (part.chunk(2) for part in found))
        return clean, noise

    def _guidance(self, item: NoisyRow) -> float:
        own = self.keys.lcm
        rng = np.random.default_rng([self.seed, 2, item.step, item.place])
        return float(rng.uniform(own.guidance_min, own.guidance_max))


def boundary(timesteps: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """c_skip and c_out at timesteps (B,), (B, 1, 1, 1) each: f(x_0, 0) = x_0."""
    scaled = (timesteps.float() * scaling).view(-1, 1, 1, 1)
    total = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, scaled / total.sqrt()


def huber(difference: Tensor, width: float) -> Tensor:
    """Pseudo-Huber: the mean of sqrt(d^2 + c^2) - c over all but the first dimension."""
    return ((difference.square() + width**2).sqrt() - width).mean(dim=(1, 2, 3))
