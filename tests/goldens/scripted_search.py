"""A sampler whose images say which candidate they are and after how many steps, and a judge that reads a script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genloop.records import Prompt, Seed

SCALE = 1000
INVALID = 50.0  # P(no) of an invalid answer in the recordings


@dataclass(frozen=True, eq=False)
class ScriptedState:
    """tokens (B, 2): the candidate, the steps done."""

    tokens: Tensor
    lengths: tuple[int, ...]

    @property
    def guess(self) -> Tensor:
        return self.tokens

    @property
    def content(self) -> Tensor:
        return self.tokens

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(self.tokens[:, 1].tolist())

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: Sequence[int]) -> "ScriptedState":
        return ScriptedState(self.tokens[list(rows)], tuple(self.lengths[row] for row in rows))


class ScriptedSampler:
    """Implements as much of the Sampler protocol as strategies without branches and corrections need."""

    grid = (1, 2)
    slots = 5
    flops_per_step = flops_per_decode = 1.0

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps

    def start(self, prompts: Sequence[Prompt], seeds: Sequence[Seed]) -> ScriptedState:
        tokens = torch.tensor([[seed.candidate, 0] for seed in seeds])
        return ScriptedState(tokens, (self.num_steps,) * len(seeds))

    def join(self, states: Sequence[ScriptedState]) -> ScriptedState:
        lengths = tuple(length for state in states for length in state.lengths)
        return ScriptedState(torch.cat([state.tokens for state in states]), lengths)

    def step(self, state: ScriptedState) -> ScriptedState:
        return replace(state, tokens=state.tokens + torch.tensor([0, 1]))

    def history(self, state: ScriptedState, row: int) -> dict[str, Any]:
        return {}

    def decode(self, tokens: Tensor) -> Tensor:
        return (tokens / SCALE)[:, None, None].expand(-1, 3, 1, -1)


@dataclass(frozen=True)
class ScriptedJudge:
    """The answers of one recorded scenario; implements the Judge protocol.

    The recordings hold the sampled word and P(no) of potential apart, P(yes) is one number: below one half for the word
    "no", and in the order of P(no), which decides only where no candidate was answered with yes.
    """

    candidates: Sequence[Mapping[str, Any]]

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        keys = (images[:, 0, 0] * SCALE).round().long().tolist()
        return torch.tensor([self._answer(question, *key) for key in keys], dtype=torch.float64)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        return 0.0

    def _answer(self, question: str, index: int, steps: int) -> float:
        candidate = self.candidates[index]
        if question == "clarity":
            return float(steps == candidate["clear_step"] + 1)
        if question == "outcome":
            return candidate["yes_prob"]
        if candidate["no_prob"] == INVALID:
            return math.nan
        return (0.51 if candidate["potential"] else 0.0) + 0.49 * (1 - candidate["no_prob"])
