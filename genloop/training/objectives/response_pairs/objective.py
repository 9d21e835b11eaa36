"""The objective of pairs of answers: what is better shall be more probable (DPO: Rafailov et al. 2023).

    bradley_terry  z = beta (s_w - s_l),  s the mean of log p over an answer's tokens
    dpo            z = beta ((s_w - r_w) - (s_l - r_l)),  s the sum, r that of the model at the start
    verdict        z = beta (log p(right verdict) - log p(wrong verdict)), once for each order of the answers

The loss of a pair is -log sigmoid(z), for verdict the mean of both orders: with beta = 1 the cross-entropy of the
verdict among the two. U = pairs, C = contrasts of a pair, S = sides, 2 U C of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genloop.data.order import Order
from genloop.models.qwen.images import PatchedImage
from genloop.models.qwen.model import ChatModel
from genloop.training.objectives.conversations.objective import looked_at, token_losses
from genloop.training.objectives.preference.losses import pair_terms
from genloop.training.objectives.response_pairs.rows import ResponseRows, SideBatch
from genloop.training.task import Loss, Objective, Plan


@dataclass(frozen=True, eq=False)
class ResponseBatch:
    """Some pairs, and what the model at the start says of them."""

    sides: SideBatch
    reference: Tensor  # (U, C, 2)


class ResponsePairObjective(Objective[int, ResponseBatch]):
    """`kept`: places of the pairs that are trained on; `reference` (N, C, 2): means at the start, or zeros."""

    model: ChatModel

    def __init__(
        self,
        model: ChatModel,
        rows: ResponseRows,
        kept: Sequence[int],
        reference: np.ndarray,
        *,
        beta: float,
        batch_size: int,
        seed: int,
        idle: PatchedImage | None = None,
    ) -> None:
        """`idle`: an image for batches without one, where sharded layers must be called equally often on all ranks."""
        self.model, self.rows, self.kept, self.reference = model, rows, kept, reference
        self._beta, self._batch_size, self._idle = beta, batch_size, idle
        self._order = Order([len(kept)], seed)

    def plan(self, step: int) -> Plan[int]:
        """The places of a step's pairs; each epoch shuffles them anew."""
        items = [int(self.kept[number]) for number in self._order.rows(step, self._batch_size)]
        return Plan(items, float(len(items)))

    def load(self, items: Sequence[int], plan: Plan[int]) -> ResponseBatch:
        """Read and tokenise some pairs."""
        return ResponseBatch(self.rows.sides(items), torch.from_numpy(self.reference[list(items)]))

    def loss(self, batch: ResponseBatch) -> Loss:
        """The sum over the pairs."""
        means = side_means(self.model, self.rows, batch.sides)  # (U, C, 2)
        factor = batch.sides.num_tokens.view_as(means) if self.rows.loss == "dpo" else torch.ones_like(means)
        policy, reference = ((scores * factor).flatten(0, 1)[:, None] for scores in (means, batch.reference))
        terms = pair_terms(policy, reference, beta=self._beta, wanted_margin=torch.zeros_like(policy[:, 0, 0]))
        losses = terms.dpo.view(means.shape[:2]).mean(1)  # (U,)
        if self._idle is not None and not batch.sides.chats.pixels:
            losses = losses + 0 * looked_at(self.model, self._idle)
        margins = terms.margin.detach()
        right = ((margins > 0).float() + (margins >= 0).float()) / 2  # ties count half
        parts = {
            name: float(values.mean()) * len(losses) for name, values in (("accuracy", right), ("margin", margins))
        }
        return Loss(losses.sum(), float(len(losses)), parts)


def side_means(model: ChatModel, rows: ResponseRows, batch: SideBatch) -> Tensor:
    """-> means of log p over the tokens of each side (U, C, 2), the right side first; float32, with gradient."""
    losses, _ = token_losses(model, batch.chats, rows.documents.chat.folder.image_token)
    sums = torch.zeros_like(batch.num_tokens).index_add(0, batch.sides, -losses)
    return (sums / batch.num_tokens).view(-1, rows.contrasts, 2)
