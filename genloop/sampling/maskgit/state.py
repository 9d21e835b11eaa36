"""Paths of MaskGIT decoding between two steps.

B = rows, n = image tokens, K = codebook size, which stands for a masked token. Rows of one state may be at different
steps of schedules of different lengths: nothing in a row refers to the rows beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genloop.models.showo.prefix import Prefix
from genloop.records import Seed


@dataclass(frozen=True, eq=False)
class MaskGitState:
    """Implements `genloop.protocols.State`. Nothing in it is changed in place."""

    tokens: Tensor  # (B, n) int64 codes, K where masked
    revealed_at: Tensor  # (B, n) int64: the step that fixed a token, -1 while masked, 0 where given from the start
    guess: Tensor  # (B, n): all tokens as the last step would fill them; `tokens` before the first
    seeds: tuple[Seed, ...]
    prefixes: tuple[Prefix, ...]
    steps: tuple[int, ...]  # done since the path was started or masked again
    lengths: tuple[int, ...]  # steps until a row is done
    horizons: tuple[int, ...]  # steps of a row's schedule; more than its length where the sampler stops early
    scheduled: tuple[int, ...]  # the number of tokens whose share the schedule keeps masked
    before: tuple[int, ...]  # steps before the path was masked again: `revealed_at` goes on counting
    rounds: tuple[int, ...]  # how often it was masked again: keys its noise apart
    guidance: tuple[float, ...]  # factors of the guidance scale

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def content(self) -> Tensor:
        """`tokens`, by the name that all samplers share."""
        return self.tokens

    def select(self, rows: Sequence[int]) -> "MaskGitState":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.tokens.device)
        values: dict[str, Any] = {name: getattr(self, name)[index] for name in _TENSORS}
        values |= {name: tuple(getattr(self, name)[row] for row in rows) for name in _TUPLES}
        return MaskGitState(**values)

    def again(self, drop: Tensor, mask_code: int, num_steps: int) -> "MaskGitState":
        """The rows with the tokens where `drop` (B, n) is True masked, in front of a schedule over those alone."""
        tokens = self.tokens.masked_fill(drop, mask_code)
        return replace(
            self,
            tokens=tokens,
            revealed_at=self.revealed_at.masked_fill(drop, -1),
            guess=tokens,
            steps=(0,) * len(self),
            lengths=(num_steps,) * len(self),
            horizons=(num_steps,) * len(self),
            scheduled=tuple(drop.sum(1).tolist()),
            before=tuple(before + steps for before, steps in zip(self.before, self.steps)),
            rounds=tuple(number + 1 for number in self.rounds),
        )


_TENSORS = ("tokens", "revealed_at", "guess")
_TUPLES = ("seeds", "prefixes", "steps", "lengths", "horizons", "scheduled", "before", "rounds", "guidance")


def join(states: Sequence[MaskGitState]) -> MaskGitState:
    """All rows of the states, in order."""
    values: dict[str, Any] = {name: torch.cat([getattr(state, name) for state in states]) for name in _TENSORS}
    values |= {name: tuple(value for state in states for value in getattr(state, name)) for name in _TUPLES}
    return MaskGitState(**values)
