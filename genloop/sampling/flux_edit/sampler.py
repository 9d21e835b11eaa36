"""One request of editing as a sampler: a step is a whole run of the stock pipeline, a content its packed latents.

On a CPU each row runs by itself, so that an image has the same bits whatever is drawn beside it; on a GPU kernels may
differ with the shape of a batch. B = rows, n = tokens of the transformer, C = their width, H, W = pixels.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.memory import Budget
from genloop.models.flux_edit.drawing import Drawing
from genloop.models.flux_edit.encode import Conditions
from genloop.models.flux_edit.pipelines import Drawer
from genloop.records import Prompt, Seed
from genloop.sampling.noise import torch_seed

_ONE_STEP = "an edited image is drawn in one step; use search.strategy=none or best_of_n"


@dataclass(frozen=True, slots=True)
class EditState:
    """Implements `genloop.protocols.State`."""

    latents: Tensor  # (B, n, C); zeros before the step
    seeds: tuple[Seed, ...]
    steps: tuple[int, ...]

    @property
    def content(self) -> Tensor:
        return self.latents

    @property
    def guess(self) -> Tensor:
        return self.latents

    @property
    def lengths(self) -> tuple[int, ...]:
        return (1,) * len(self)

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, rows: Sequence[int]) -> "EditState":
        """See `State.select`."""
        seeds, steps = tuple(self.seeds[row] for row in rows), tuple(self.steps[row] for row in rows)
        return EditState(self.latents[list(rows)], seeds, steps)


class EditSampler:
    """Implements `genloop.protocols.Sampler` for one request."""

    num_steps = 1
    flops_per_step = 0.0  # not known
    flops_per_decode = 0.0

    def __init__(
        self,
        drawer: Drawer,
        drawing: Drawing,
        conditions: Conditions,
        *,
        slots: int,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.drawer, self.drawing, self.conditions = drawer, drawing, conditions
        self.slots, self.before_step = slots, before_step
        self.grid, self.channels = drawer.grid(drawing.size), drawer.channels
        self._budget = Budget(1 if drawer.device.type == "cpu" else slots, "slots")

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed]) -> EditState:
        """See `Sampler.start`."""
        latents = torch.zeros(len(seeds), self.grid[0] * self.grid[1], self.channels)
        return EditState(latents, tuple(seeds), (0,) * len(seeds))

    def join(self, states: Sequence[EditState]) -> EditState:
        """See `Sampler.join`."""
        latents = torch.cat([state.latents for state in states])
        seeds, steps = (sum((getattr(state, key) for state in states), ()) for key in ("seeds", "steps"))
        return EditState(latents, seeds, steps)

    def branch(self, state: EditState, seeds: Sequence[Seed]) -> EditState:
        """Other noise, before the step; afterwards there is nothing left to draw."""
        return replace(state, seeds=tuple(seeds))

    def remask(self, state: EditState, drop: Tensor, num_steps: int) -> EditState:
        """ValueError: see the module."""
        raise ValueError(_ONE_STEP)

    def correct(self, state: EditState, prompts: Sequence[Prompt], reasons: Sequence[str]) -> EditState:
        """ValueError: see the module."""
        raise ValueError(_ONE_STEP)

    def renoise(
        self,
        state: EditState,
        prompts: Sequence[Prompt],
        strength: float,
        guidance: float = 1.0,
        cells: Tensor | None = None,
    ) -> EditState:
        """ValueError: see the module."""
        raise ValueError(_ONE_STEP)

    def confidence(self, state: EditState) -> Tensor:
        """ValueError: see the module."""
        raise ValueError(_ONE_STEP)

    def step(self, state: EditState) -> EditState:
        """Draws every row."""

        def draw(seeds: Sequence[Seed]) -> list[Tensor]:
            self.before_step()
            return list(self.drawer.draw(self.drawing, self.conditions, [torch_seed(seed) for seed in seeds]))

        latents = torch.stack(list(self._budget.run(list(state.seeds), 1, draw)))
        return EditState(latents, state.seeds, (1,) * len(state))

    def preview(self, state: EditState) -> Tensor:
        """See `Sampler.preview`."""
        return self.decode(state.latents)

    def decode(self, content: Tensor) -> Tensor:
        """(B, n, C) -> (B, 3, H, W) pixels in [0, 1]"""
        return self.drawer.decode(self.drawing, content)

    def history(self, state: EditState, row: int) -> dict[str, np.ndarray]:
        """Nothing: an image follows from its seed."""
        return {}

    def pack(self, content: np.ndarray, history: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        """The sha256 of the float32 latents."""
        return {"latents_sha256": hashlib.sha256(np.ascontiguousarray(content, dtype="<f4").tobytes()).hexdigest()}
