"""DPO on preference pairs: what a step looks at, and the loss. The terms are those of losses.py. U = pairs, D = draws.

Each item is a pair with all its draws and, where real images are replayed, its share of those; so every micro-batch
does the same passes, and the terms of all items add up to the mean over the batch of all ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.data.order import Order
from genloop.data.pairs.shards import PairShards
from genloop.models.showo.model import ShowO
from genloop.rundir import RunFailed
from genloop.training.objectives.masked_tokens import MaskedCaption, MaskedTokens, TokenRows
from genloop.training.objectives.preference.estimator import Estimator, PairRows
from genloop.training.objectives.preference.judged import JudgedImages
from genloop.training.objectives.preference.losses import PairTerms, pair_terms, share_won
from genloop.training.objectives.preference.reference import Key, keys_of
from genloop.training.objectives.preference.settings import PreferenceSettings
from genloop.training.task import Gathered, Loss, Objective, Plan


@dataclass(frozen=True, slots=True)
class PairItem:
    """A pair of a step, what the reference says of it (D, 2), and the images replayed beside it."""

    key: Key
    reference: np.ndarray
    place: int  # in the step
    replay: tuple[MaskedCaption, ...]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Some items on the device of the model."""

    rows: PairRows
    step: int
    keys: tuple[Key, ...]
    places: tuple[int, ...]  # in the step
    reference: Tensor  # (U, D, 2)
    gaps: Tensor  # (U,): by how much the chosen side's score is higher
    weight: float  # pairs of the whole batch
    num_labels: float  # of the whole batch: what the cross-entropy of the chosen side is divided by
    replay: TokenRows | None
    num_replay_labels: float  # of the whole batch


class Preference(Objective[PairItem, PairBatch]):
    """Pairs with a loss of DPO's kind. `before` is called before step 1, `after` every `after_every` steps."""

    model: ShowO

    def __init__(
        self,
        model: ShowO,
        pairs: PairShards,
        estimator: Estimator,
        settings: PreferenceSettings,
        reference: Mapping[Key, np.ndarray],
        *,
        batch_size: int,
        replay: MaskedTokens | None = None,
        judged: JudgedImages | None = None,
        before: "Callable[[Preference], Mapping[str, Any] | None]" = lambda objective: None,
        after: "Callable[[Preference, int], Mapping[str, Any] | None]" = lambda objective, step: None,
        after_every: int = 0,
    ) -> None:
        self.model, self.pairs, self.estimator, self.settings = model, pairs, estimator, settings
        self.reference, self.batch_size, self.replay = reference, batch_size, replay
        self.judged, self._before = judged, before
        self.prepare_every = 0 if judged is None else settings.judge_every
        self.after_every, self._after = after_every, after
        self._order = Order(pairs.sizes, estimator.seed)

    def plan(self, step: int) -> Plan[PairItem]:
        """The pairs of a step with the epoch of their masks; the weight is the number of pairs."""
        keys = self._keys_of(step)
        replayed, replay_labels = self._replayed(step)
        count = len(replayed) // len(keys)
        items = [
            PairItem(key, self.reference[key], i, tuple(replayed[i * count : (i + 1) * count]))
            for i, key in enumerate(keys)
        ]
        labels = sum(self.estimator.num_labels(row, epoch) for epoch, row in keys) if self.settings.sft else 1
        return Plan(items, float(len(items)), (step, len(items), labels, replay_labels))

    def load(self, items: Sequence[PairItem], plan: Plan[PairItem]) -> PairBatch:
        """Read the pairs and lay out their rows under their masks."""
        step, weight, labels, replay_labels = plan.shared
        pairs = [self.pairs.read(item.key[1]) for item in items]
        draws = [self.estimator.draws_of(pair, item.key[1], item.key[0]) for pair, item in zip(pairs, items)]
        replayed = [caption for item in items for caption in item.replay]
        return PairBatch(
            self.estimator.lay_out(pairs, draws),
            step,
            tuple(item.key for item in items),
            tuple(item.place for item in items),
            torch.from_numpy(np.stack([item.reference for item in items])),
            torch.tensor([pair.margin for pair in pairs], dtype=torch.float32),
            weight,
            labels,
            self.replay.load(replayed, Plan([], replay_labels)) if self.replay is not None else None,
            replay_labels,
        )

    def loss(self, batch: PairBatch) -> Loss:
        """The part of some pairs in the mean over the batch, times the number of pairs of the batch."""
        policy = self.estimator.log_probs(self.model, batch.rows).sum(3)  # (U, D, 2)
        terms = self._terms(policy, batch)
        sums = self._pair_sums(policy, terms, batch)
        if batch.replay is not None:
            sums["replay"] = self._replay_sum(batch)
        if self.judged is not None:
            sums["judge"] = self.judged.loss(self.model, batch.step, batch.places)
        sides, ratios = policy.detach().mean(1).sum(0), (policy.detach() - batch.reference).mean(1).sum(0)  # (2,)
        parts = {f"loss_{name}": float(value.detach()) for name, value in sums.items()} | {
            "chosen_log_prob": float(sides[0]),
            "rejected_log_prob": float(sides[1]),
            "chosen_log_ratio": float(ratios[0]),
            "rejected_log_ratio": float(ratios[1]),
            "margin": float(terms.margin.detach().sum()),
            "accuracy": float(share_won(terms.margin.detach(), self.settings.beta).sum()),
        }
        return Loss(self._weighted(sums), float(len(batch.keys)), parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """What has a gradient of its own."""
        has_judge = self.judged is not None and self.settings.judge_guidance == "reinforce"
        return ("preference", *(["replay"] if self.replay is not None else []), *(["judge"] if has_judge else []))

    def part(self, name: str, batch: PairBatch) -> Tensor:
        """One of `parts` in the loss."""
        if name == "replay":
            return self._weighted({"replay": self._replay_sum(batch)})
        if name == "judge":
            assert self.judged is not None
            return self._weighted({"judge": self.judged.loss(self.model, batch.step, batch.places)})
        policy = self.estimator.log_probs(self.model, batch.rows).sum(3)
        return self._weighted(self._pair_sums(policy, self._terms(policy, batch), batch))

    @property
    def weights(self) -> dict[str, float]:
        """The factor of each term."""
        settings = self.settings
        terms = {"dpo": 1.0, "dpop": settings.dpop, "sft": settings.sft}
        weights = {name: settings.preference_weight * weight for name, weight in terms.items()}
        return weights | {"replay": settings.replay_weight, "judge": settings.judge_weight}

    def prepare(self, step: int, gathered: Gathered) -> Mapping[str, Any] | None:
        """Images for the judge, where it has a say."""
        assert self.judged is not None
        found = self.judged.prepare(step, self._keys_of, gathered)
        return found if (step - 1) % self.prepare_every == 0 else None

    def before_training(self, step: int) -> Mapping[str, Any] | None:
        """What `before` finds before step 1, for a line of metrics.jsonl."""
        return self._before(self) if step == 0 else None

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """What `after` finds, for a line of metrics.jsonl."""
        return self._after(self, step)

    def _keys_of(self, step: int) -> list[Key]:
        return keys_of(self._order, step, self.batch_size, self.settings.mask_epochs)

    def _replayed(self, step: int) -> tuple[Sequence[MaskedCaption], float]:
        """The images replayed in a step, and how many labels they have."""
        if self.replay is None:
            return (), 0.0
        plan = self.replay.plan(step)
        return plan.items, plan.weight

    def _pair_sums(self, policy: Tensor, terms: PairTerms, batch: PairBatch) -> dict[str, Tensor]:
        sums = {"dpo": terms.dpo.sum(), "dpop": terms.dpop.sum()}
        if self.settings.sft:
            sums["sft"] = -policy[:, :, 0].sum() * batch.weight / batch.num_labels
        return sums

    def _replay_sum(self, batch: PairBatch) -> Tensor:
        assert self.replay is not None and batch.replay is not None
        return self.replay.loss(batch.replay).total * batch.weight / batch.num_replay_labels

    def _weighted(self, sums: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[name] * value for name, value in sums.items()]).sum()

    def _terms(self, policy: Tensor, batch: PairBatch) -> PairTerms:
        """RunFailed, which names the pair, where a loss is no number."""
        wanted = torch.zeros_like(batch.gaps)
        if self.settings.judge_guidance == "margin":
            wanted = self.settings.judge_weight * batch.gaps
        terms = pair_terms(policy, batch.reference, beta=self.settings.beta, wanted_margin=wanted)
        is_finite = (terms.dpo + terms.dpop).isfinite()
        if not is_finite.all():
            epoch, row = batch.keys[int(is_finite.int().argmin())]
            raise RunFailed(
                f"{self.pairs.name(row)}: its loss is no number (masks of epoch {epoch}); the checkpoints before it "
                "stay as they are; lower train.lr"
            )
        return terms
