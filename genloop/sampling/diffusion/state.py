"""Paths of denoising between two steps. B = rows, C, h, w = channels and sides of a latent.

Rows may be at different steps of schedules of different lengths: nothing in a row refers to the rows beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genloop.models.diffusion.denoiser import Condition
from genloop.records import Seed


@dataclass(frozen=True, eq=False)
class DiffusionState:
    """Implements `genloop.protocols.State`. Nothing in it is changed in place. All tensors (B, C, h, w) float32."""

    latents: Tensor  # x, as the solver holds it: noise at the start, clean at the end
    guess: Tensor  # the predicted x0; before the first step what was there before: noise, or the reopened latents
    known: Tensor  # what a reopened path keeps; NaN where it is drawn
    seeds: tuple[Seed, ...]
    conditions: tuple[Condition, ...]
    steps: tuple[int, ...]  # done since the path was started or reopened
    lengths: tuple[int, ...]  # steps until a row is done
    horizons: tuple[int, ...]  # steps of a row's schedule; a reopened path takes the last `lengths` of them
    rounds: tuple[int, ...]  # how often it was reopened
    guidance: tuple[float, ...]  # factors of the guidance scale
    follows: tuple[bool, ...]  # whether `guess` is the prediction of the step before, on the same way

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def content(self) -> Tensor:
        """`latents`, by the name that all samplers share."""
        return self.latents

    @property
    def places(self) -> list[int]:
        """The step of its schedule that each row takes next."""
        return [horizon - length + done for horizon, length, done in zip(self.horizons, self.lengths, self.steps)]

    def select(self, rows: Sequence[int]) -> "DiffusionState":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.latents.device)
        values: dict[str, Any] = {name: getattr(self, name)[index] for name in _TENSORS}
        values |= {name: tuple(getattr(self, name)[row] for row in rows) for name in _TUPLES}
        return DiffusionState(**values)


_TENSORS = ("latents", "guess", "known")
_TUPLES = ("seeds", "conditions", "steps", "lengths", "horizons", "rounds", "guidance", "follows")


def join(states: Sequence[DiffusionState]) -> DiffusionState:
    """All rows of the states, in order."""
    values: dict[str, Any] = {name: torch.cat([getattr(state, name) for state in states]) for name in _TENSORS}
    values |= {name: tuple(value for state in states for value in getattr(state, name)) for name in _TUPLES}
    return DiffusionState(**values)
