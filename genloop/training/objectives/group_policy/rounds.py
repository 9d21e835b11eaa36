"""One rollout and all that the steps which learn from it need: images, states, old log-probabilities, advantages.

C = P G images, P = groups, G = images of a group, S = states of an image, n = image tokens; a row is a state of an
image, C S in all.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.data.order import Order
from genloop.records import Prompt, Seed
from genloop.rundir import RunFailed
from genloop.training.objectives.group_policy.advantages import group_advantages, shuffled
from genloop.training.objectives.group_policy.settings import GroupPolicySettings
from genloop.training.objectives.group_policy.states import States, states_of
from genloop.training.rollouts import Pair, Rollout, Rollouts
from genloop.training.task import Gathered

LogProbs = Callable[[Rollout, States, Sequence[int]], Tensor]
"""rows (numbers in [0, C S)) -> log p of their tokens (rows, n), 0 where one does not count; without gradient."""


@dataclass(frozen=True, eq=False)
class Round:
    """On the CPU, the same on every rank."""

    images: Rollout
    states: States
    advantages: Tensor  # (C,) float32
    kept: Tensor  # (P,) bool: groups whose scores differ
    old: Tensor  # (C, S, n) log p of the policy that drew the images
    reference: Tensor | None  # (C, S, n)

    @property
    def num_rows(self) -> int:
        """C S."""
        return self.old.shape[0] * self.old.shape[1]

    def is_kept(self, row: int) -> bool:
        """Whether a row belongs to a group that says something."""
        return bool(self.kept[row // (self.num_rows // len(self.kept))])


class Rounds:
    """Makes rounds, or reads them where they are stored."""

    def __init__(
        self,
        settings: GroupPolicySettings,
        prompts: Sequence[Prompt],
        rollouts: Rollouts,
        log_probs: LogProbs,
        seed: int,
    ) -> None:
        self.settings, self.prompts, self.rollouts = settings, prompts, rollouts
        self.log_probs, self.seed = log_probs, seed
        self._order = Order([len(prompts)], seed)

    def make(self, number: int, gathered: Gathered, *, from_stored: bool) -> Round:
        """The round of this number from 0, under the weights as they are; RunFailed where it is too late to draw it."""
        first, pairs = 1 + number * self.settings.steps_per_rollout, self._pairs(number)
        kinds = ["images", "policy", *(["reference"] if self.settings.has_reference else [])]
        is_there = {kind: self.rollouts.is_stored(first, kind, pairs) for kind in kinds}
        if from_stored and not all(is_there.values()):
            raise RunFailed(
                f"{self.rollouts.folder}/{first:07d} is not there as it was, and the weights that drew it are gone; "
                "start again with another `out`"
            )
        with nullcontext() if is_there["images"] and is_there["policy"] else gathered(averages=False):
            images = self.rollouts.draw(first, pairs)
            num_steps = self.rollouts.sampler.num_steps
            key = [self.seed, 4, number]
            states = states_of(self.settings, images.revealed_at, num_steps=num_steps, key=key)
            old = self._stored(first, "policy", pairs, images, states)
        reference = None
        if self.settings.has_reference:
            with nullcontext() if is_there["reference"] else gathered(averages=True):
                reference = self._stored(first, "reference", pairs, images, states)
        return self._round(images, states, old, reference, number)

    def blank(self, num_tokens: int) -> Round:
        """A round of images of code 0, every group of which is kept."""
        pairs, num_steps = self._pairs(0), self.rollouts.sampler.num_steps
        revealed = torch.arange(num_tokens).remainder(num_steps).expand(len(pairs), -1)
        scores = torch.arange(len(pairs), dtype=torch.float64)
        images = Rollout(tuple(p for p, _ in pairs), torch.zeros_like(revealed), revealed, scores)
        states = states_of(self.settings, revealed, num_steps=num_steps, key=[self.seed])
        old = torch.zeros(states.masked.shape)
        return self._round(images, states, old, old if self.settings.has_reference else None, 0)

    def _round(self, images: Rollout, states: States, old: Tensor, reference: Tensor | None, number: int) -> Round:
        scores = images.scores.numpy().reshape(-1, self.settings.group_size)
        if self.settings.shuffle_scores:
            scores = shuffled(scores, np.random.default_rng([self.seed, 5, number]))
        advantages, kept = group_advantages(scores, by_std=self.settings.advantage == "group_std")
        return Round(
            images, states, torch.from_numpy(advantages).float().flatten(), torch.from_numpy(kept), old, reference
        )

    def _stored(self, step: int, kind: str, pairs: Sequence[Pair], images: Rollout, states: States) -> Tensor:
        """(C, S, n) log p of all rows under the weights as they are, or as they were stored."""
        num_states = states.masked.shape[1]

        def compute(part: range) -> dict[str, Tensor]:
            rows = range(part.start * num_states, part.stop * num_states)
            return {"log_p": self.log_probs(images, states, rows).unflatten(0, (len(part), num_states))}

        return self.rollouts.rows(step, kind, pairs, compute)["log_p"]

    def _pairs(self, number: int) -> list[Pair]:
        """The prompts of a round, each as often as its group has images; noise is keyed by how often it came before."""
        count, size = self.settings.groups, self.settings.group_size
        chosen = [self.prompts[row] for row in self._order.rows(number + 1, count)]
        seen = [(number * count + place) // len(self.prompts) for place in range(count)]
        return [
            (prompt, Seed(self.seed, prompt.index, sample, candidate))
            for prompt, sample in zip(chosen, seen, strict=True)
            for candidate in range(size)
        ]


def summary_of(images: Rollout, kept: Tensor) -> dict[str, Any]:
    """What a line of metrics says of a rollout; the error of the mean score is that over prompts."""
    scores = images.scores.numpy().reshape(len(kept), -1)
    means = scores[np.isfinite(scores).all(axis=1)].mean(axis=1)
    error = float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else 0.0
    return {
        **({"reward": float(means.mean()), "reward_se": error} if len(means) else {}),
        "reward_groups": len(means),
        "reward_images": int(np.isfinite(scores).sum()),
        "groups_kept": int(kept.sum()),
        "groups_dropped": int((~kept).sum()),
    }
