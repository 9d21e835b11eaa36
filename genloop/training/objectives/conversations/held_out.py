"""What a chat model is worth on held-out chats: the loss of the assistant's tokens, with intervals over chats."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from genloop.distributed import World
from genloop.models.qwen.model import ChatModel
from genloop.stats.resampling import bootstrap, mean_of_strata
from genloop.training.loading import mapped
from genloop.training.objectives.conversations.audit import Audit
from genloop.training.objectives.conversations.batches import collate
from genloop.training.objectives.conversations.documents import Documents
from genloop.training.objectives.conversations.objective import token_losses
from genloop.training.reductions import sum_over_ranks


class HeldOutChats:
    """Measures chats one by one; ranks share them."""

    def __init__(self, documents: Documents, audit: Audit, num_chats: int) -> None:
        """At the most `num_chats`, evenly spread."""
        self.documents, count = documents, min(num_chats, len(audit.kept))
        self.numbers = audit.kept[np.linspace(0, len(audit.kept) - 1, count).round().astype(int)]

    def __len__(self) -> int:
        return len(self.numbers)

    @torch.no_grad()
    def sums(self, model: ChatModel, world: World) -> np.ndarray:
        """(chats, 3): loss, right tokens, tokens; the same on all ranks."""
        was_training, device = model.training, model.device
        model.eval()
        found = np.zeros((len(self), 3))
        for place in range(world.rank, len(self), world.world_size):
            batch = collate([[self.documents[int(self.numbers[place])]]])
            moved = mapped(batch, lambda tensor: tensor.to(device))
            losses, right = token_losses(model, moved, self.documents.chat.folder.image_token)
            found[place] = float(losses.sum()), float(right.sum()), len(losses)
        model.train(was_training)
        return sum_over_ranks(found, world)


def point_estimates(sums: np.ndarray) -> dict[str, float]:
    """Means over tokens, for a line of metrics.jsonl."""
    loss, right, tokens = sums.sum(0)
    return {"val_loss": loss / tokens, "val_accuracy": right / tokens}


def summary_of(sums: np.ndarray, seed: int) -> Mapping[str, Any]:
    """Means over tokens with 95 % intervals over chats: {name: [estimate, low, high]}, and the numbers of both."""
    found = {}
    for place, name in enumerate(("loss", "accuracy")):
        found[name] = list(_ratio(sums[:, place], sums[:, 2], seed))
    return {"chats": len(sums), "tokens": int(sums[:, 2].sum()), **found}


def _ratio(parts: np.ndarray, wholes: np.ndarray, seed: int) -> Any:
    strata = np.zeros(len(parts), dtype=np.int64)
    return bootstrap(mean_of_strata(parts, wholes, strata), strata, seed)[0]
