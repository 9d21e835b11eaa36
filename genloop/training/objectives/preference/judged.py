"""A judge's say in the training: images that the policy draws for prompts of its pairs, judged, and learned from.

reinforce  adds -A log p(tokens), the tokens of an image hidden at random places that all images of its prompt share; A
           is the image's P(yes) less the mean of the others of its prompt (leave one out; Ahmadian et al. 2024).
released   adds the mean of -log P(yes) as the published code does: a constant, without gradient.

U = images of a step, one for each pair; G = images of a prompt; n = image tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.data.pairs.pair import prompt_of
from genloop.data.pairs.shards import PairShards
from genloop.models.showo.model import ShowO
from genloop.records import Prompt, Seed
from genloop.rundir import RunFailed
from genloop.training.objectives.group_policy.advantages import group_advantages
from genloop.training.objectives.group_policy.rounds import summary_of
from genloop.training.objectives.log_probs import code_log_probs
from genloop.training.objectives.masked_tokens import draw_masks
from genloop.training.objectives.preference.estimator import Estimator
from genloop.training.objectives.preference.reference import Key
from genloop.training.objectives.preference.settings import PreferenceSettings
from genloop.training.rollouts import Rollout, Rollouts
from genloop.training.task import Gathered

_KEY = 12  # of the random masks, beside others of the same seed
_LEAST = 1e-7  # of P(yes) in its logarithm, as published


@dataclass(eq=False)
class JudgedImages:
    """The images of the steps at hand, on the CPU and the same on every rank."""

    settings: PreferenceSettings
    estimator: Estimator
    pairs: PairShards
    rollouts: Rollouts
    autocast: Callable[[], AbstractContextManager[object]]
    images: Rollout | None = None

    def prepare(self, step: int, keys_of: Callable[[int], Sequence[Key]], gathered: Gathered) -> Mapping[str, Any]:
        """Draw the images of the next `judge_every` steps, or read them where they are stored.

        RunFailed where a resumed run would have to draw images of weights that are gone.
        """
        first = step - (step - 1) % self.settings.judge_every
        wanted = self._wanted(first, keys_of(first))
        if step != first and not self.rollouts.is_stored(first, "images", wanted):
            raise RunFailed(
                f"{self.rollouts.folder}/{first:07d} is not there as it was, and the weights that drew it are gone; "
                "start again with another `out`"
            )
        with gathered(averages=False), self.autocast():
            self.images = self.rollouts.draw(first, wanted)
        self.rollouts.prune_for_checkpoints(self.settings.judge_every)
        _, kept = self._advantages(self.images)
        return summary_of(self.images, kept)

    def rehearse(self, num_images: int) -> None:
        """Take images of nothing, without drawing them."""
        tokens = torch.zeros(num_images, self.estimator.layout.config.num_vq_tokens, dtype=torch.int64)
        scores = torch.arange(num_images, dtype=torch.float64) / num_images
        self.images = Rollout(tuple(Prompt(i, "a") for i in range(num_images)), tokens, tokens, scores)

    def loss(self, model: ShowO, step: int, places: Sequence[int]) -> Tensor:
        """The term of some images of a step, as a sum over them."""
        assert self.images is not None
        if self.settings.judge_guidance == "released":
            scores = self.images.scores[list(places)].nan_to_num(nan=1.0).clamp(min=_LEAST)
            return -scores.log().sum().float().to(model.device)
        advantages = self._advantages(self.images)[0][list(places)]
        log_p = self._log_probs(model, self.images, step, places)
        return -(advantages.float().to(log_p.device) * log_p).sum()

    def _advantages(self, images: Rollout) -> tuple[Tensor, Tensor]:
        """(U,) by how much an image's score is above the mean of the others of its prompt; which prompts tell some."""
        group = self.settings.judge_group
        centred, kept = group_advantages(images.scores.numpy().reshape(-1, group), by_std=False)
        return torch.from_numpy(centred).flatten() * group / (group - 1), torch.from_numpy(kept)

    def _log_probs(self, model: ShowO, images: Rollout, step: int, places: Sequence[int]) -> Tensor:
        """(len(places),) log p of the hidden tokens of some images."""
        layout = self.estimator.layout
        rng = np.random.default_rng([self.estimator.seed, _KEY, step])
        masks = draw_masks(rng, len(images) // self.settings.judge_group, layout.config.num_vq_tokens)
        hidden = torch.from_numpy(masks[[place // self.settings.judge_group for place in places]]).to(model.device)
        tokens = images.tokens[list(places)].to(model.device)
        return code_log_probs(
            model,
            layout,
            [images.prompts[place].condition for place in places],
            torch.where(hidden, layout.config.codebook_size, tokens),
            tokens,
            dropped=[False] * len(places),
            guidance_scale=self.estimator.guidance_scale,
            wanted=hidden,
        ).sum(1)

    def _wanted(self, step: int, keys: Sequence[Key]) -> list[tuple[Prompt, Seed]]:
        """G images for each of the first prompts of a step; noise is keyed by the step and the place in it."""
        group = self.settings.judge_group
        prompts = [prompt_of(self.pairs.read(row)) for _, row in keys[: len(keys) // group]]
        return [
            (prompt, Seed(self.estimator.seed, prompt.index, step, place * group + number))
            for place, prompt in enumerate(prompts)
            for number in range(group)
        ]
