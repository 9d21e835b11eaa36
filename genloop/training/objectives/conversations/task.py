"""A training on chats: what is learned from, what it is measured on, and what it is worth at the end."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop import terminal
from genloop.distributed import World
from genloop.models.qwen.chat import Chat
from genloop.models.qwen.families import pictures_of
from genloop.models.qwen.model import ChatModel
from genloop.rundir import write_json
from genloop.training.objectives.conversations.audit import Audit, audit
from genloop.training.objectives.conversations.documents import Documents
from genloop.training.objectives.conversations.held_out import HeldOutChats, point_estimates, summary_of
from genloop.training.objectives.conversations.keys import ChatTrainingKeys
from genloop.training.objectives.conversations.objective import ConversationObjective
from genloop.training.objectives.conversations.packs import one_by_one, pack_documents
from genloop.training.objectives.conversations.sources import Sides
from genloop.training.parts import lr_scale_of
from genloop.training.precision import Precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ChatSides:
    """Chats that are learned from, and those that are measured on."""

    sides: Sides
    documents: Documents
    audit: Audit
    held_out: HeldOutChats | None

    @property
    def report(self) -> dict[str, Any]:
        """What has a loss, and what was cut or left out."""
        return self.audit.report

    @property
    def digests(self) -> Mapping[str, Path | str]:
        """What enters the fingerprint."""
        return self.sides.digests


def read_chats(keys: ChatTrainingKeys, chat: Chat, sides: Sides) -> ChatSides:
    """Every chat of both sides as tokens; ValueError for what cannot be learned from."""
    if chat.folder.has_encoder and keys.chat.packing:
        raise ValueError("chat.packing: a model with an encoder takes one chat a row; set chat.packing=false")
    pictures = pictures_of(chat.folder)
    documents = Documents(sides.train, chat, pictures, keys.chat)
    held_out = Documents(sides.val, chat, pictures, keys.chat)
    found = audit(documents)
    measured = HeldOutChats(held_out, audit(held_out), keys.eval_chats) if len(held_out) else None
    if keys.eval_every and measured is None:
        raise ValueError("eval_every: nothing is held out to measure on; set eval_every=0")
    return ChatSides(sides, documents, found, measured)


@dataclass(frozen=True, eq=False)
class ChatTask:
    """What is trained on, and where its numbers go."""

    data: ChatSides
    keys: ChatTrainingKeys
    run: Path
    world: World
    seed: int

    def at_the_start(self, model: ChatModel) -> None:
        """Nothing is measured before the first step."""

    def nothing_before(self) -> None:
        """What `at_the_start` gives, without a model."""

    def objective(self, model: ChatModel, before: None) -> ConversationObjective:
        """The objective with its measurements in between."""
        keys, documents, held_out = self.keys, self.data.documents, self.data.held_out

        def evaluate(step: int) -> dict[str, float] | None:
            if held_out is None or step == keys.train.num_steps:
                return None  # measured as it is saved
            with Precision(keys.train.precision, model.device).autocast():
                return point_estimates(held_out.sums(model, self.world))

        found = self.data.audit
        lengths = found.lengths.tolist()
        packs = pack_documents(lengths, keys.chat.max_length) if keys.chat.packing else one_by_one(lengths)
        weights = np.zeros(len(documents), dtype=np.int64)
        weights[found.kept] = found.weights
        is_sharded = keys.train.zero_stage == 3 and self.world.world_size > 1
        objective = ConversationObjective(
            model,
            documents,
            [tuple(found.kept[list(pack)].tolist()) for pack in packs],
            weights.tolist(),
            seed=self.seed,
            idle=documents.pictures.blank() if is_sharded and documents.pictures is not None else None,
        )
        objective.evaluate, objective.after_every = evaluate, keys.eval_every
        objective.lr_scale_of = lr_scale_of(keys.rates, keys.train.lr)
        return objective

    def conclude(self, model: ChatModel, before: None) -> None:
        """Measure the trained model, called on all ranks; rank 0 writes what it is worth."""
        held_out = self.data.held_out
        is_mixed = len({p.dtype for p in model.parameters() if p.is_floating_point()}) > 1  # adapters beside bfloat16
        with Precision(self.keys.train.precision if is_mixed else "fp32", model.device).autocast():
            sums = held_out.sums(model, self.world) if held_out is not None else None
        if self.world.rank:
            return
        if sums is None:
            log.warning("nothing is held out: what the model is worth was not measured")
            return
        summary = summary_of(sums, self.seed)
        write_json(self.run / "summary.json", summary)
        loss, accuracy = summary["loss"], summary["accuracy"]
        terminal.out(
            f"held out: {summary['chats']} chats, loss {loss[0]:.3f} [{loss[1]:.3f}, {loss[2]:.3f}], "
            f"right tokens {accuracy[0]:.1%} [{accuracy[1]:.1%}, {accuracy[2]:.1%}]"
        )
