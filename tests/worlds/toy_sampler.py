"""A sampler that is nothing like Show-o: real numbers on a grid, denoised step by step. No weights.

A content is a latent (1, h, w), drawn from a Gaussian around a mean that the prompt decides. After step s of S what is
known is (s / S) * latent + (1 - s / S) * noise; the guess is the latent, blurred less with every step.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.records import Prompt, Seed

SIDE = 4


@dataclass(frozen=True, eq=False)
class ToyState:
    """target, noise, kept (B, 1, h, w): where a row goes, where it came from, what is not drawn again (NaN: all is)."""

    target: Tensor
    noise: Tensor
    kept: Tensor
    means: tuple[float, ...]
    seeds: tuple[Seed, ...]
    steps: tuple[int, ...]
    lengths: tuple[int, ...]
    rounds: tuple[int, ...]

    @property
    def content(self) -> Tensor:
        return self._with_kept(self._done() * self.target + (1 - self._done()) * self.noise)

    @property
    def guess(self) -> Tensor:
        flat = self.target.mean((2, 3), keepdim=True)
        return self._with_kept(self._done() * self.target + (1 - self._done()) * flat)

    def __len__(self) -> int:
        return len(self.seeds)

    def select(self, rows: Sequence[int]) -> "ToyState":
        index = list(rows)
        tensors = {name: getattr(self, name)[index] for name in ("target", "noise", "kept")}
        return replace(self, **tensors, **{name: tuple(getattr(self, name)[i] for i in index) for name in TUPLES})

    def _done(self) -> Tensor:
        shares = [step / length for step, length in zip(self.steps, self.lengths)]
        return torch.tensor(shares)[:, None, None, None]

    def _with_kept(self, drawn: Tensor) -> Tensor:
        return torch.where(self.kept.isnan(), drawn, self.kept)


TUPLES = ("means", "seeds", "steps", "lengths", "rounds")


class ToySampler:
    """Implements `genloop.protocols.Sampler`."""

    grid = (SIDE, SIDE)
    flops_per_step = 10.0
    flops_per_decode = 1.0

    def __init__(self, num_steps: int = 6, slots: int = 64) -> None:
        self.num_steps, self.slots = num_steps, slots

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed]) -> ToyState:
        return self._drawn([_mean(prompt.condition) for prompt in prompts], seeds, (0,) * len(seeds), self.num_steps)

    def join(self, states: Sequence[ToyState]) -> ToyState:
        tensors = {name: torch.cat([getattr(s, name) for s in states]) for name in ("target", "noise", "kept")}
        return ToyState(**tensors, **{name: tuple(v for s in states for v in getattr(s, name)) for name in TUPLES})

    def branch(self, state: ToyState, seeds: Sequence[Seed]) -> ToyState:
        return replace(state, seeds=tuple(seeds))

    def remask(self, state: ToyState, drop: Tensor, num_steps: int) -> ToyState:
        again = self._drawn(state.means, state.seeds, tuple(r + 1 for r in state.rounds), num_steps)
        return replace(again, kept=state.content.masked_fill(drop.view(-1, 1, *self.grid), torch.nan))

    def renoise(
        self,
        state: ToyState,
        prompts: Sequence[Prompt],
        strength: float,
        guidance: float = 1.0,
        cells: Tensor | None = None,
    ) -> ToyState:
        steps = max(1, math.ceil(strength * self.num_steps))
        means = [guidance * _mean(prompt.condition) for prompt in prompts]
        again = self._drawn(means, state.seeds, tuple(r + 1 for r in state.rounds), steps)
        again = replace(again, target=strength * again.target + (1 - strength) * state.content)
        if cells is None:
            return again
        return replace(again, kept=state.content.masked_fill(cells.view(-1, 1, *self.grid), torch.nan))

    def correct(self, state: ToyState, prompts: Sequence[Prompt], reasons: Sequence[str]) -> ToyState:
        means = [_mean(prompt.condition + reason) for prompt, reason in zip(prompts, reasons, strict=True)]
        return self._drawn(means, state.seeds, tuple(r + 1 for r in state.rounds), self.num_steps)

    def step(self, state: ToyState) -> ToyState:
        assert all(done < length for done, length in zip(state.steps, state.lengths))
        return replace(state, steps=tuple(done + 1 for done in state.steps))

    def confidence(self, state: ToyState) -> Tensor:
        means = torch.tensor(state.means)[:, None]
        return -(state.guess.flatten(1) - means).abs()

    def preview(self, state: ToyState) -> Tensor:
        return self.decode(state.guess)

    def decode(self, content: Tensor) -> Tensor:
        return content.repeat(1, 3, 2, 2).sigmoid()  # whole vectors a row: ends of others are computed another way

    def history(self, state: ToyState, row: int) -> dict[str, np.ndarray]:
        return {}

    def pack(self, content: np.ndarray, history: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
        return {"latent": content.astype("<f4").tobytes().hex()}

    def _drawn(
        self, means: Sequence[float], seeds: Sequence[Seed], rounds: tuple[int, ...], num_steps: int
    ) -> ToyState:
        shape, rows = (len(seeds), 1, *self.grid), list(zip(seeds, rounds, means))
        target = torch.stack([mean + _gaussian(seed, number, "target") for seed, number, mean in rows])
        noise = torch.stack([_gaussian(seed, number, "noise") for seed, number, _ in rows])
        kept, lengths = torch.full(shape, torch.nan), (num_steps,) * len(seeds)
        return ToyState(target, noise, kept, tuple(means), tuple(seeds), (0,) * len(seeds), lengths, rounds)


def _mean(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=1).digest(), "little") / 128 - 1


def _gaussian(seed: Seed, round: int, purpose: str) -> Tensor:
    digest = hashlib.blake2b(f"{seed}/{round}/{purpose}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(1, SIDE, SIDE, generator=generator)
