"""The objective of conversations: cross-entropy of what the assistant says, and of nothing else.

The loss of a step is a mean over the tokens with a loss of the whole batch, on however many ranks it is computed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.data.order import Order
from genloop.models.common.footprint import kind_of
from genloop.models.qwen.images import PatchedImage, features_of
from genloop.models.qwen.model import ChatModel, embedded, logits_of, packed_hidden
from genloop.training.objectives.conversations.batches import ChatBatch, collate
from genloop.training.objectives.conversations.documents import Documents
from genloop.training.objectives.conversations.encoding import word_losses
from genloop.training.task import Loss, Objective, Plan

Row = tuple[int, ...]  # numbers of documents


class ConversationObjective(Objective[Row, ChatBatch]):
    """`rows`: documents that share a row of tokens; `weights`: how many tokens of a document have a loss."""

    model: ChatModel

    def __init__(
        self,
        model: ChatModel,
        documents: Documents,
        rows: Sequence[Row],
        weights: Sequence[int],
        *,
        seed: int,
        idle: PatchedImage | None = None,
    ) -> None:
        """`idle`: an image for batches without one, where sharded layers must be called equally often on all ranks."""
        self.model, self.documents, self.rows, self.weights = model, documents, rows, weights
        self._idle = idle
        self._order = Order([len(rows)], seed)

    def plan(self, step: int) -> Plan[Row]:
        """The rows of a step; each epoch shuffles them anew."""
        size = self.documents.settings.batch_size
        items = [self.rows[number] for number in self._order.rows(step, size)]
        return Plan(items, float(sum(self.weights[number] for item in items for number in item)))

    def load(self, items: Sequence[Row], plan: Plan[Row]) -> ChatBatch:
        """Read and tokenise the documents of some rows."""
        return collate([[self.documents[number] for number in item] for item in items])

    def loss(self, batch: ChatBatch) -> Loss:
        """The sum over the tokens with a loss."""
        losses, right = token_losses(self.model, batch, self.documents.chat.folder.image_token)
        if self._idle is not None and not batch.pixels:
            losses = losses + 0 * looked_at(self.model, self._idle)
        return Loss(losses.sum(), float(len(batch.targets)), {"accuracy": float(right.sum())})


def looked_at(model: ChatModel, image: PatchedImage) -> Tensor:
    """The sum of an image's features: a pass through all layers that see."""
    questions = [] if image.question is None else [image.question.to(model.device)]
    return features_of(model, [image.pixels.to(model.device)], [image.grid], questions).sum()


def token_losses(model: ChatModel, batch: ChatBatch, image_token: int) -> tuple[Tensor, Tensor]:
    """-> cross-entropy (K,) in float32, and whether the token is the most probable one (K,)."""
    shown: dict[str, Any] = {"pixels": batch.pixels, "grids": batch.grids, "questions": batch.questions}
    embeds = embedded(model, batch.ids, image_token=image_token, **shown)
    hidden = packed_hidden(model, embeds, batch.positions, batch.sources)[batch.rows, batch.columns]
    logits = logits_of(model, hidden)  # (K, V): of all the others nobody asks
    with torch.autocast(kind_of(logits.device), enabled=False):
        losses = word_losses(logits.log_softmax(-1), batch.targets)
    return losses, logits.detach().argmax(-1) == batch.targets
