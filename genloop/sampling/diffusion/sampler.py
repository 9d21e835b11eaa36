"""Diffusion with classifier-free guidance, walked step by step. B = rows, C, h, w = a latent, n = h w cells.

A row depends on its prompt, its Seed and the settings alone. On a CPU each path runs by itself, its guided pair in one
pass, or in passes that always have `paths_per_forward` paths, so that this holds to the last bit; on a GPU kernels may
differ with the shape of a batch.
"""

import hashlib
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.footprint import kind_of
from genloop.models.common.memory import Budget
from genloop.models.diffusion.denoiser import Condition, Denoiser
from genloop.records import Prompt, Seed
from genloop.sampling.diffusion.passes import check_passes, filled
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.solvers import StepTable
from genloop.sampling.diffusion.state import DiffusionState, join
from genloop.sampling.noise import gaussian

PROBES = 3  # noises behind a confidence: passes with the text alone, half a guided step each


class DiffusionSampler:
    """Implements `genloop.protocols.Sampler` on a denoiser; `tables` gives the solver's numbers for so many steps."""

    def __init__(
        self,
        model: Denoiser,
        tables: Callable[[int], StepTable],
        settings: DiffusionSampling,
        *,
        rows_per_forward: int = 256,
        slots: int = 64,
        paths_per_forward: int = 1,
        before_step: Callable[[], None] = lambda: None,
        noise: Callable[..., Tensor] = gaussian,
    ) -> None:
        self.model, self.settings, self.noise = model, settings, noise
        self.num_steps, self.grid, self.slots = settings.num_steps, model.grid, slots
        self.before_step = before_step  # may raise, to stop in the middle of a search
        branches = 2 if settings.is_guided else 1
        self.flops_per_step = branches * model.flops_per_pass
        self.flops_per_decode = model.flops_per_decode
        self._paths = paths_per_forward if kind_of(model.device) == "cpu" else 0  # 0: passes of any size
        if self._paths > 1:
            check_passes(model, self._paths, is_guided=settings.is_guided)
        self._budget = Budget(self._paths or max(1, rows_per_forward // branches), "rows_per_forward")
        self._decoding = Budget(self._paths or slots, "slots")
        self._make_table = tables
        self._tables: dict[int, StepTable] = {}
        self._conditions: weakref.WeakValueDictionary[str, Condition] = weakref.WeakValueDictionary()
        self._unconditional = model.encode(settings.negative_prompt) if settings.is_guided else None

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed], given: Tensor | None = None) -> DiffusionState:
        """One row for each (prompt, seed) pair: Gaussian noise, or `given` clean latents (B, C, h, w) that are noised.

        A path takes the last `num_steps` of the schedule; given latents are noised to where those begin.
        """
        rows, latents = len(prompts), self._begun(seeds, given)
        return DiffusionState(
            latents=latents,
            guess=latents if given is None else given,
            known=torch.full_like(latents, torch.nan),
            seeds=tuple(seeds),
            conditions=tuple(self._condition(prompt.condition) for prompt in prompts),
            steps=(0,) * rows,
            lengths=(self.num_steps,) * rows,
            horizons=(self.settings.num_steps,) * rows,
            rounds=(0,) * rows,
            guidance=(1.0,) * rows,
            follows=(False,) * rows,
        )

    def join(self, states: Sequence[DiffusionState]) -> DiffusionState:
        """All rows of the states, in order; they may be at different steps."""
        return join(states)

    def branch(self, state: DiffusionState, seeds: Sequence[Seed]) -> DiffusionState:
        """The same paths with other noise from here on; a row whose seed stays goes on as it would have.

        Where a solver draws no noise, the noise that is left in a latent is exchanged: the prediction of the last step
        is noised again to where the path stands, as image-to-image does.
        """
        if len(seeds) != len(state):
            raise ValueError(f"{len(state)} rows need as many seeds, found {len(seeds)}")
        rows = [self._branched(state.select([row]), seed) for row, seed in enumerate(seeds)]
        return join(rows) if rows else state

    def remask(self, state: DiffusionState, drop: Tensor, num_steps: int) -> DiffusionState:
        """Noise finished rows again, to be denoised in the last `num_steps` of a schedule where `drop` (B, n) is True.

        The strength of image-to-image is `num_steps` / steps; the other cells end as they are.
        """
        horizon, rows = max(self.settings.num_steps, num_steps), len(state)
        marked = drop.to(state.latents.device).view(rows, 1, *self.grid)
        rounds = tuple(number + 1 for number in state.rounds)
        levels, place = self._table(horizon).levels, horizon - num_steps
        noise = self._noise(state.seeds, [0] * rows, rounds, "reopen")
        return replace(
            state,
            latents=levels.alpha_in[place].item() * state.latents + levels.sigma_in[place].item() * noise,
            guess=state.latents,
            known=state.latents.masked_fill(marked, torch.nan),
            steps=(0,) * rows,
            lengths=(num_steps,) * rows,
            horizons=(horizon,) * rows,
            rounds=rounds,
            follows=(False,) * rows,
        )

    def renoise(
        self,
        state: DiffusionState,
        prompts: Sequence[Prompt],
        strength: float,
        guidance: float = 1.0,
        cells: Tensor | None = None,
    ) -> DiffusionState:
        """Image-to-image with other texts: noise in `cells` (B, n), or everywhere, of `strength` of the steps."""
        if cells is None:
            cells = torch.ones(len(state), self.grid[0] * self.grid[1], dtype=torch.bool)
        again = self.remask(state, cells, max(1, math.ceil(strength * self.settings.num_steps)))
        conditions = tuple(self._condition(prompt.condition) for prompt in prompts)
        return replace(again, conditions=conditions, guidance=(guidance,) * len(state))

    def correct(self, state: DiffusionState, prompts: Sequence[Prompt], reasons: Sequence[str]) -> DiffusionState:
        """Diffusion models read no criticised image: ValueError."""
        raise ValueError("a diffusion model cannot read an image and a reason; use search.options.correction=remask")

    @torch.inference_mode()
    def step(self, state: DiffusionState) -> DiffusionState:
        """One denoising step for every row."""
        self.before_step()
        if any(done >= length for done, length in zip(state.steps, state.lengths)):
            raise ValueError(f"all {max(state.lengths)} steps are done")
        columns = self._columns(state)
        x0 = columns["by_latent"] * state.latents + columns["by_output"] * self._output(state, columns)
        latents = columns["a"] * state.latents + columns["b"] * x0 + columns["c"] * state.guess
        if any(self._tables[horizon].draws for horizon in state.horizons):
            latents = latents + columns["d"] * self._noise(state.seeds, state.places, state.rounds, "step")
        steps = tuple(done + 1 for done in state.steps)
        latents, guess = self._with_known(state, columns, latents, x0)
        is_done = self._column([float(done == length) for done, length in zip(steps, state.lengths)]) > 0
        return replace(
            state,
            latents=torch.where(is_done & ~state.known.isnan(), state.known, latents),
            guess=torch.where(is_done, torch.where(state.known.isnan(), latents, state.known), guess),
            steps=steps,
            follows=(True,) * len(state),
        )

    def preview(self, state: DiffusionState) -> Tensor:
        """The predicted x0 of every row as pixels: (B, 3, H, W) in [0, 1]."""
        if min(state.steps) == 0:
            raise ValueError("there is no guess before the first step")
        return self.decode(state.guess)

    @torch.inference_mode()
    def confidence(self, state: DiffusionState) -> Tensor:
        """How well each cell of the guess is predicted again from the text and its noised self: (B, n) float32.

        Minus the mean squared error of x0 over channels and three keyed noises at the middle of the schedule.
        """
        horizon, rows = self.settings.num_steps, len(state)
        place = horizon // 2
        again = replace(state, steps=(0,) * rows, lengths=(horizon - place,) * rows, follows=(False,) * rows)
        again = replace(again, horizons=(horizon,) * rows)
        columns, levels = self._columns(again), self._table(horizon).levels
        error = torch.zeros_like(state.guess)
        for probe in range(PROBES):
            noise = self._noise(state.seeds, [probe] * rows, state.rounds, "confidence")
            noised = levels.alpha_in[place].item() * state.guess + levels.sigma_in[place].item() * noise
            output = self._run(columns["scale"] * noised, columns["timesteps"].flatten(), state.conditions)
            error += (columns["by_latent"] * noised + columns["by_output"] * output - state.guess).square()
        return -error.mean(1).flatten(1) / PROBES

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) clean latents -> (B, 3, H, W) pixels in [0, 1]."""
        on_device = latents.to(self.model.device)

        def compute(rows: Sequence[int]) -> list[Tensor]:
            return list(self.model.decode(on_device[filled(rows, self._paths)])[: len(rows)])

        return torch.stack(self._decoding.run(range(len(on_device)), 1, compute))

    def history(self, state: DiffusionState, row: int) -> dict[str, np.ndarray]:
        """Nothing: a path follows from its seed."""
        return {}

    def pack(self, content: np.ndarray, history: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        """The sha256 of the float32 latents. They follow from the seed; 128 KiB an image of SDXL are not stored."""
        return {"latents_sha256": hashlib.sha256(np.ascontiguousarray(content, dtype="<f4").tobytes()).hexdigest()}

    def _table(self, horizon: int) -> StepTable:
        if horizon not in self._tables:
            self._tables[horizon] = self._make_table(horizon)
        return self._tables[horizon]

    def _condition(self, text: str) -> Condition:
        """An encoded text; kept for as long as a path needs it."""
        condition = self._conditions.get(text)
        if condition is None:
            condition = self._conditions[text] = self.model.encode(text)
        return condition

    def _noise(self, seeds: Sequence[Seed], steps: Sequence[int], rounds: Sequence[int], purpose: str) -> Tensor:
        """(B, C, h, w) on the device"""
        shape = (self.model.channels, *self.grid)
        keys = zip(seeds, steps, rounds, strict=True)
        drawn = [self.noise(seed, shape, step=step, round=number, purpose=purpose) for seed, step, number in keys]
        return torch.stack(drawn).to(self.model.device)

    def _begun(self, seeds: Sequence[Seed], given: Tensor | None) -> Tensor:
        """Latents (B, C, h, w) before the first step."""
        none, horizon = [0] * len(seeds), self.settings.num_steps
        levels, place = self._table(horizon).levels, horizon - self.num_steps
        noise = self._noise(seeds, none, none, "latents")
        if given is None:
            return levels.start * noise
        return levels.alpha_in[place].item() * given + levels.sigma_in[place].item() * noise

    def _branched(self, state: DiffusionState, seed: Seed) -> DiffusionState:
        """One row with another seed."""
        (place,), (number,) = state.places, state.rounds
        other = replace(state, seeds=(seed,))
        if seed == state.seeds[0] or state.steps == state.lengths:
            return other
        if number == 0 and state.steps[0] == 0:
            given = state.guess if place else None
            latents = self._begun([seed], given)
            return replace(other, latents=latents, guess=latents if given is None else given)
        table = self._table(state.horizons[0])
        if table.draws:
            return other
        noise = self._noise([seed], [place], [number], "branch")
        levels = table.levels
        latents = levels.alpha_in[place].item() * state.guess + levels.sigma_in[place].item() * noise
        return replace(other, latents=latents, follows=(False,))

    def _columns(self, state: DiffusionState) -> dict[str, Tensor]:
        """The numbers of each row's step, each (B, 1, 1, 1)."""
        found: dict[str, list[float]] = {}
        for horizon, place, follows in zip(state.horizons, state.places, state.follows):
            table = self._table(horizon)
            values = {name: getattr(table, name)[place] for name in ("scale", "by_latent", "by_output", "a", "d")}
            values |= {"b": (table.b if follows else table.b_first)[place], "c": table.c[place] if follows else 0.0}
            levels = ("timesteps", "alpha_in", "sigma_in", "alpha_out", "sigma_out")
            values |= {name: getattr(table.levels, name)[place] for name in levels}
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        return {name: self._column(values) for name, values in found.items()}

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.model.device).view(-1, 1, 1, 1)

    def _output(self, state: DiffusionState, columns: Mapping[str, Tensor]) -> Tensor:
        """The guided output: without + g (with - without)."""
        seen, timesteps = columns["scale"] * state.latents, columns["timesteps"].flatten()
        scales = [self.settings.guidance_scale * factor for factor in state.guidance]
        return self._run(seen, timesteps, state.conditions, self._unconditional, scales)

    def _run(
        self,
        seen: Tensor,
        timesteps: Tensor,
        conditions: Sequence[Condition],
        unconditional: Condition | None = None,
        scales: Sequence[float] = (),
    ) -> Tensor:
        """The output (B, C, h, w) of as many paths at a time as fit; `scales`: of each row's guidance."""
        result, column = torch.empty_like(seen), self._column(scales)

        def compute(rows: Sequence[int]) -> Sequence[int]:
            at, kept = filled(rows, self._paths), list(rows)
            part, times, texts = seen[at], timesteps[at], [conditions[row] for row in at]
            if unconditional is None:
                result[kept] = self.model.predict(part, times, texts)[: len(kept)]
            else:
                pair = self.model.predict(part.repeat(2, 1, 1, 1), times.repeat(2), [unconditional] * len(at) + texts)
                without, with_text = (half[: len(kept)] for half in pair.chunk(2))
                result[kept] = without + column[kept] * (with_text - without)
            return rows

        self._budget.run(range(len(seen)), 1, compute)
        return result

    def _with_known(
        self, state: DiffusionState, columns: Mapping[str, Tensor], latents: Tensor, x0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Latents and guess with the kept cells at their noise level."""
        if not any(state.rounds):
            return latents, x0
        noise = self._noise(state.seeds, [0] * len(state), state.rounds, "reopen")
        noised = columns["alpha_out"] * state.known + columns["sigma_out"] * noise
        drawn = state.known.isnan()
        return torch.where(drawn, latents, noised), torch.where(drawn, x0, state.known)
