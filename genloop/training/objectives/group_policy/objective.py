"""Masked-token GRPO of a Show-o: images are drawn by the policy, compared within their prompt, and learned from.

Groups of images of one prompt are drawn by the suite's sampler and scored (Shao et al. 2024). Their tokens'
log-probabilities under policy, old policy and reference are taken at the same states. B = rows of a pass, n = image
tokens; see rounds.py for the others.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout
from genloop.records import Prompt
from genloop.rundir import RunFailed
from genloop.training.objectives.group_policy.losses import Terms, group_policy_terms, published_terms
from genloop.training.objectives.group_policy.rounds import Round, Rounds, summary_of
from genloop.training.objectives.group_policy.settings import GroupPolicySettings
from genloop.training.objectives.group_policy.states import States
from genloop.training.objectives.log_probs import code_log_probs
from genloop.training.rollouts import Rollout, Rollouts
from genloop.training.task import Gathered, Loss, Objective, Plan

_EXACT, _ROUNDED = 1e-5, 0.05  # largest gap between equal log-probabilities, in single and in half precision


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the round at hand, by number; what they hold is in memory already."""

    numbers: tuple[int, ...]
    step: int


class GroupPolicy(Objective[int, Rows]):
    """Items are rows of a round: states of images."""

    model: ShowO

    def __init__(
        self,
        model: ShowO,
        layout: Layout,
        settings: GroupPolicySettings,
        prompts: Sequence[Prompt],
        rollouts: Rollouts,
        *,
        seed: int,
        guidance_scale: float,
        rows_per_forward: int,
        autocast: Callable[[], AbstractContextManager[object]],
        is_exact: bool,
    ) -> None:
        self.model, self.layout, self.settings, self.seed = model, layout, settings, seed
        self.guidance_scale, self.rows_per_forward, self.autocast = guidance_scale, rows_per_forward, autocast
        self.prepare_every = settings.steps_per_rollout
        self.rollouts = rollouts
        self.rounds = Rounds(settings, prompts, rollouts, self._frozen_log_probs, seed)
        self.round: Round | None = None
        self._tolerance = _EXACT if is_exact else _ROUNDED
        self._is_tested = False

    def plan(self, step: int) -> Plan[int]:
        """A share of the rows of a round, which each of its epochs shuffles anew."""
        items = self._rows_of(step)
        return Plan(items, float(len(items)), step)

    def load(self, items: Sequence[int], plan: Plan[int]) -> Rows:
        """The numbers alone: the round may not be drawn yet when items are read ahead."""
        return Rows(tuple(items), plan.shared)

    def loss(self, batch: Rows) -> Loss:
        """Sum over the rows of kept groups, scaled as if these were all of the step's; dropped ones have no KL either.

        The sums for the metrics are scaled alike, so that they become means over the rows that are kept.
        """
        assert self.round is not None
        kept = [row for row in batch.numbers if self.round.is_kept(row)]
        rows = kept or batch.numbers[:1]  # a pass at least: all ranks do equally many
        terms, gap = self._terms(self.round, rows, self._log_probs(self.round.images, self.round.states, rows))
        share = self._kept_share(batch.step)
        factor = 1 / share if kept else 0.0
        found = {"ratio": terms.ratio, "clip_share": terms.clipped, "kl": terms.kl, "log_prob_gap": gap}
        parts = {name: factor * float(value.double().sum()) for name, value in found.items()}
        if not share:
            parts["ratio"] = float(len(batch.numbers))  # nothing has moved
        return Loss(terms.loss.sum() * factor, float(len(batch.numbers)), parts)

    def _rows_of(self, step: int) -> list[int]:
        """The rows of a step over all ranks."""
        settings = self.settings
        number, place = divmod(step - 1, self.prepare_every)
        epoch, part = divmod(place, settings.steps_per_epoch)
        num_rows = settings.groups * settings.group_size * settings.draws
        order = np.random.default_rng([self.seed, 3, number, epoch]).permutation(num_rows)
        return np.array_split(order, settings.steps_per_epoch)[part].tolist()

    def _kept_share(self, step: int) -> float:
        """The share of a step's rows, over all ranks, whose groups are kept."""
        assert self.round is not None
        rows = self._rows_of(step)
        return sum(map(self.round.is_kept, rows)) / len(rows)

    def prepare(self, step: int, gathered: Gathered) -> Mapping[str, Any] | None:
        """Draw the images of the steps to come, or read them where a resumed run has drawn them before."""
        number, place = divmod(step - 1, self.prepare_every)
        with self.autocast():
            self.round = self.rounds.make(number, gathered, from_stored=place > 0)
        self.rollouts.prune_for_checkpoints(self.prepare_every)
        if place > 0:
            return None
        if not self._is_tested:
            with gathered(averages=False), self.autocast():
                self._self_test(self.round)
        return summary_of(self.round.images, self.round.kept)

    def rehearse(self) -> None:
        """Take images of nothing for the next round, without drawing them."""
        self.round = self.rounds.blank(self.model.config.num_vq_tokens)

    def _terms(self, found: Round, rows: Sequence[int], log_p: Tensor) -> tuple[Terms, Tensor]:
        """log_p (B, n) of some rows -> their loss, and the mean distance of log_p from the old policy's (B,)."""
        device, settings, number = self.model.device, self.settings, torch.tensor(list(rows))
        old, weights = (v.flatten(0, 1)[number].to(device) for v in (found.old, found.states.weights))
        advantages = found.advantages[number // found.old.shape[1]].to(device)
        if settings.variant == "released":
            terms = published_terms(log_p, advantages, weights, clip_range=settings.clip_range, kl=settings.kl)
        else:
            reference = None if found.reference is None else found.reference.flatten(0, 1)[number].to(device)
            terms = group_policy_terms(
                log_p,
                old,
                reference,
                advantages,
                weights,
                clip_range=settings.clip_range,
                kl=settings.kl,
                by_sequence=settings.ratio == "sequence",
            )
        counts = (weights > 0).float()
        gap = ((log_p.detach() - old).abs() * counts).sum(1) / counts.sum(1).clamp(min=1)
        return terms, gap

    def _log_probs(self, images: Rollout, states: States, rows: Sequence[int]) -> Tensor:
        """(B, n) log p of the tokens that count at these rows' states, 0 elsewhere; guided as the images were drawn."""
        number = torch.tensor(list(rows))
        of = number // states.masked.shape[1]
        tokens, masked = images.tokens[of], states.masked.flatten(0, 1)[number]
        device = self.model.device
        return code_log_probs(
            self.model,
            self.layout,
            [images.prompts[image].condition for image in of.tolist()],
            tokens.masked_fill(masked, self.model.config.codebook_size).to(device),
            tokens.to(device),
            dropped=[False] * len(number),
            guidance_scale=self.guidance_scale,
            wanted=(states.weights.flatten(0, 1)[number] > 0).to(device),
        )

    @torch.no_grad()
    def _frozen_log_probs(self, images: Rollout, states: States, rows: Sequence[int]) -> Tensor:
        """`_log_probs` of any number of rows, on the CPU."""
        size = self.rows_per_forward
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return torch.cat([self._log_probs(images, states, part).cpu() for part in parts])

    def _self_test(self, found: Round) -> None:
        """RunFailed unless the policy equals the old policy before a step: ratio 1, equal log p, nothing clipped."""
        in_part = self.rollouts.rows_per_part * found.old.shape[1]
        rows = range(min(self.rows_per_forward, in_part, found.num_rows))  # one pass, as it was done for the old policy
        self.model.train()
        log_p = self._log_probs(found.images, found.states, rows)
        self.model.eval()
        terms, _ = self._terms(found, rows, log_p)
        gap = float((log_p.detach().cpu() - found.old.flatten(0, 1)[: len(rows)]).abs().max())
        ratio, clipped = float((terms.ratio - 1).abs().max()), float(terms.clipped.sum())
        if not (gap < self._tolerance and ratio < self._tolerance * 10 and clipped == 0):
            raise RunFailed(
                f"the policy differs from itself before any step: log-probabilities by {gap:.2g} (allowed "
                f"{self._tolerance:g}), the ratio from 1 by {ratio:.2g}, {clipped:.3g} rows are clipped"
            )
        self._is_tested = True
