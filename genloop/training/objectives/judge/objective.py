"""Training of a judge: a LLaVA-OneVision that answers yes or no about images. The terms are those of losses.py.

Each term is a mean over the batch of all ranks, times its weight.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genloop.models.common.footprint import kind_of
from genloop.models.llava.model import Llava, embed_tokens, image_features, llava_config
from genloop.training.objectives.judge.batches import JudgeBatch, PixelsOf, load_batch
from genloop.training.objectives.judge.items import Item, ItemPlans
from genloop.training.objectives.judge.losses import cell_loss, pair_loss, position_losses, yes_no_margin
from genloop.training.objectives.judge.packing import supervised_hidden
from genloop.training.objectives.judge.settings import LossSettings
from genloop.training.task import Loss, Objective, Plan

BACKGROUND = "background"


class JudgeObjective(Objective[Item, JudgeBatch]):
    """What a judge is trained on, and its loss.

    `max_passes_over_ranks` turns a number of forward passes into the largest of all ranks; sharded layers need it.
    """

    model: Llava

    def __init__(
        self,
        model: Llava,
        plans: ItemPlans,
        weights: LossSettings,
        pixels_of: PixelsOf,
        *,
        max_passes_over_ranks: Callable[[int], int] | None = None,
    ) -> None:
        self.model, self.plans, self.weights, self.pixels_of = model, plans, weights, pixels_of
        self._max_passes_over_ranks = max_passes_over_ranks
        self._num_patches = llava_config(model).vision.grid ** 2
        encode = plans.branches.tokenizer.encode
        planes = plans.data.cell_names if plans.cells else []
        self._words = [[torch.tensor(encode(name)) for name in (BACKGROUND, *names)] for names in planes]

    def plan(self, step: int) -> Plan[Item]:
        """The items of a step, and how many answers, pairs, cells, names there are in them."""
        return self.plans(step)

    def load(self, items: Sequence[Item], plan: Plan[Item]) -> JudgeBatch:
        """Read the images of some items and lay out their rows."""
        num_items, totals = plan.shared
        return load_batch(
            items,
            self.plans,
            self.pixels_of,
            num_patches=self._num_patches,
            num_items=num_items,
            totals=totals,
        )

    def loss(self, batch: JudgeBatch) -> Loss:
        """The part of some items in the loss of the whole batch; the weights of all items add up to 1."""
        branches = self.plans.branches
        features = image_features(self.model, batch.pixels)
        hidden = supervised_hidden(
            self.model, features, batch.packed, max_passes_over_ranks=self._max_passes_over_ranks
        )
        logits = self.model.lm_head(hidden[batch.supervised.places]).float()  # (K, V)
        with torch.autocast(kind_of(features.device), enabled=False):
            sums = position_losses(logits, batch.supervised, branches.yes, branches.no)
            sums["pairs"] = pair_loss(yes_no_margin(logits, branches.yes, branches.no), batch.pairs)
            if batch.cells is not None:
                sums["cells"] = cell_loss(features, batch.cells, [self._embed(names) for names in self._words])
        weights = self.weights.model_dump()
        means = {term: value / batch.totals[term] for term, value in sums.items() if batch.totals[term]}
        total = sum((weights[term] * value for term, value in means.items()), logits.new_zeros(()))
        # the same names on every rank: those of the whole batch, also where no item here has an answer of a kind
        parts = {f"loss_{term}": 0.0 for term, count in batch.totals.items() if count}
        return Loss(
            total, batch.share, parts | {f"loss_{term}": float(value.detach()) for term, value in means.items()}
        )

    def _embed(self, names: Sequence[Tensor]) -> Tensor:
        """Token ids of each name -> embeddings (names, D); of several tokens the mean."""
        return torch.stack([embed_tokens(self.model, ids.to(self.model.device)).mean(0) for ids in names])
