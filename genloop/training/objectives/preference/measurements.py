"""What train_dpo measures beside its loss: held-out pairs, how much masks matter, the gradients of terms apart.

X = pairs that are measured, D = draws, W = places of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np
import torch

from genloop.data.pairs.shards import PairShards
from genloop.distributed import World
from genloop.models.showo.model import ShowO
from genloop.rundir import RunFailed
from genloop.stats.intervals import clustered_wilson
from genloop.training.loading import mapped
from genloop.training.objectives.preference.estimator import Estimator
from genloop.training.objectives.preference.losses import k3, pair_terms, share_won
from genloop.training.objectives.preference.objective import Preference
from genloop.training.objectives.preference.reference import Key, Tables, estimated
from genloop.training.objectives.preference.settings import PreferenceSettings
from genloop.training.reductions import sum_over_ranks

_SELF_TEST = 8  # pairs


@dataclass(frozen=True)
class MeasuredPairs:
    """Pairs, the masks they are measured under, and what the reference says of them."""

    estimator: Estimator
    pairs: PairShards
    keys: Sequence[Key]
    reference: np.ndarray  # (X, D, 2, W)

    @classmethod
    def of(cls, name: str, estimator: Estimator, pairs: PairShards, most: int, tables: Tables) -> "MeasuredPairs":
        """The first pairs of a set, under the masks of epoch 0."""
        keys = [(0, row) for row in range(min(most, len(pairs)))]
        return cls(estimator, pairs, keys, tables(name, estimator, pairs, keys))

    def policy(self, model: ShowO, rows_per_forward: int, world: World) -> np.ndarray:
        """-> (X, D, 2, W) float64; ranks share the work, all get all of it."""
        found = np.zeros(self.reference.shape)
        own = slice(world.rank, None, world.world_size)
        if len(self.keys[own]):
            found[own] = estimated(self.estimator, model, self.pairs, self.keys[own], rows_per_forward)
        return sum_over_ranks(found, world)


@dataclass(frozen=True)
class Measurements:
    """What is measured every so many steps; each may be absent."""

    settings: PreferenceSettings
    held_out: MeasuredPairs | None
    meter: MeasuredPairs | None
    rows_per_forward: int
    world: World
    autocast: Callable[[], AbstractContextManager[object]]
    is_exact: bool  # whether log-probabilities are those of single precision
    is_own_reference: bool  # whether the policy starts as the reference

    @property
    def every(self) -> int:
        """Steps between two calls at which something may be due; 0: never."""
        settings = self.settings
        periods = [settings.log_gradients_every]
        periods += [settings.eval_every] if self.held_out is not None else []
        periods += [settings.meter_every] if self.meter is not None else []
        return gcd(*periods)

    def before(self, objective: Preference) -> Mapping[str, Any]:
        """What all that is compared with later is before step 1; RunFailed when the self-test fails."""
        with self.autocast():
            if self.is_own_reference:
                self_test(objective, is_exact=self.is_exact)
            return self._held_out(objective) | self._meter(objective)

    def after(self, objective: Preference, step: int) -> Mapping[str, Any] | None:
        """A line of metrics.jsonl with what is due."""
        settings, found = self.settings, dict[str, Any]()
        with self.autocast():
            if settings.eval_every and step % settings.eval_every == 0:
                found |= self._held_out(objective)
            if settings.meter_every and step % settings.meter_every == 0:
                found |= self._meter(objective)
            if settings.log_gradients_every and step % settings.log_gradients_every == 0:
                found |= gradient_norms(objective, step, self.rows_per_forward)
        return found or None

    def _held_out(self, objective: Preference) -> dict[str, Any]:
        if self.held_out is None:
            return {}
        policy = self.held_out.policy(objective.model, self.rows_per_forward, self.world)
        return held_out_measures(policy, self.held_out, self.settings.beta)

    def _meter(self, objective: Preference) -> dict[str, Any]:
        if self.meter is None:
            return {}
        policy = self.meter.policy(objective.model, self.rows_per_forward, self.world)
        return spread_measures(policy, self.meter.reference, self.settings.draws)


def held_out_measures(policy: np.ndarray, measured: MeasuredPairs, beta: float) -> dict[str, Any]:
    """Policy (X, D, 2, W) -> accuracy with its interval (pairs of a prompt are not independent), margins, KL."""
    sides = [torch.from_numpy(values.astype(np.float64)).sum(3) for values in (policy, measured.reference)]
    terms = pair_terms(*sides, beta=beta, wanted_margin=torch.zeros(len(policy), dtype=torch.float64))
    counted = measured.reference != 0
    kl = k3(torch.from_numpy(policy[counted]), torch.from_numpy(measured.reference[counted].astype(np.float64)))
    prompts = [measured.pairs.read(row).prompt for _, row in measured.keys]
    accuracy = clustered_wilson(share_won(terms.margin, beta).tolist(), prompts)
    chosen, rejected = sides[0].mean(1).unbind(1)
    return {
        "held_out_pairs": len(policy),
        "held_out_accuracy": accuracy.estimate,
        "held_out_accuracy_low": accuracy.low,
        "held_out_accuracy_high": accuracy.high,
        "held_out_loss": float(terms.dpo.mean()),
        "held_out_margin": float(terms.margin.mean()),
        "held_out_chosen_log_prob": float(chosen.mean()),
        "held_out_rejected_log_prob": float(rejected.mean()),
        "kl": float(kl.mean()) if len(kl) else 0.0,
    }


def spread_measures(policy: np.ndarray, reference: np.ndarray, draws: int) -> dict[str, Any]:
    """(X, D, 2, W) -> how far the log-ratio of a pair is from draw to draw, and of a mean over `draws` of them."""
    ratios = (policy - reference).sum(3)
    gaps = ratios[:, :, 0] - ratios[:, :, 1]  # (X, D)
    spread = float(np.sqrt(gaps.var(axis=1, ddof=1).mean()))
    return {
        "meter_pairs": len(gaps),
        "log_ratio": float(gaps.mean()),
        "log_ratio_spread": spread,
        "log_ratio_error": spread / float(np.sqrt(draws)),
    }


def gradient_norms(objective: Preference, step: int, rows_per_forward: int) -> dict[str, float]:
    """Norms of the gradients of preference, replay and judge in the batch of a step, as in the loss, not clipped.

    Every rank computes the whole batch on the whole model. Nothing is added to the gradients of the training.
    """
    plan = objective.plan(step)
    trained = [parameter for parameter in objective.model.parameters() if parameter.requires_grad]
    device, norms = objective.model.device, {}
    for name in objective.parts:
        total = [torch.zeros_like(parameter) for parameter in trained]
        for start in range(0, len(plan.items), rows_per_forward):
            batch = objective.load(plan.items[start : start + rows_per_forward], replace(plan, items=()))
            part = objective.part(name, mapped(batch, lambda tensor: tensor.to(device)))
            found = torch.autograd.grad(part / plan.weight, trained, allow_unused=True)
            for sum_of, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    sum_of += gradient
        norms[f"grad_norm_{name}"] = float(torch.stack([gradient.norm() for gradient in total]).norm())
    return norms


def self_test(objective: Preference, *, is_exact: bool) -> None:
    """RunFailed unless the policy is the reference before step 1: ratio 1, margin 0, no pair lost or won."""
    plan = objective.plan(1)
    batch = objective.load(plan.items[:_SELF_TEST], replace(plan, items=()))
    rows = mapped(batch.rows, lambda tensor: tensor.to(objective.model.device))
    with torch.no_grad():
        policy = objective.estimator.log_probs(objective.model, rows).sum(3).cpu()  # (U, D, 2)
    gap = (policy - batch.reference).abs()
    allowed = 1e-5 * batch.reference.abs() + 1e-3 if is_exact else 0.02 * batch.reference.abs() + 0.5
    if not (gap <= allowed).all():
        pair = int((gap - allowed).nan_to_num(nan=torch.inf).amax((1, 2)).argmax())
        raise RunFailed(
            f"self-test before step 1: policy and reference differ by up to {float(gap[pair].max()):.3g} in log p of "
            f"{objective.pairs.name(batch.keys[pair][1])}; delete reference/ of the run folder, so that it is "
            "computed again"
        )
