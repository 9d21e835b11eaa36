"""A training on pairs from its first measurement to its last: RUN/reference, RUN/summary.json, RUN/pairs.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genloop import terminal
from genloop.distributed import World
from genloop.models.qwen.model import ChatModel
from genloop.rundir import write_atomic, write_json
from genloop.training.objectives.conversations.keys import ChatTrainingKeys
from genloop.training.objectives.preference.reference import Key, stored
from genloop.training.objectives.response_pairs import held_out
from genloop.training.objectives.response_pairs.data import ResponseSides
from genloop.training.objectives.response_pairs.objective import ResponsePairObjective
from genloop.training.parts import lr_scale_of
from genloop.training.precision import Precision


class BeforeTraining(NamedTuple):
    """Means of log p by the model before its first step: of the held-out pairs (n, C, 2), and of all (N, C, 2)."""

    held_out: np.ndarray
    reference: np.ndarray  # zeros where the loss does not look at it


@dataclass(frozen=True, eq=False)
class PairTask:
    """What is trained on, and where its numbers go."""

    data: ResponseSides
    keys: ChatTrainingKeys
    run: Path
    world: World
    seed: int

    def at_the_start(self, model: ChatModel) -> BeforeTraining:
        """What is known of the model before its first step, kept, as a resumed run has another model."""
        before, kept = self.nothing_before(), self.data.kept
        if self.keys.pairs.loss == "dpo":
            before.reference[kept] = self._stored("train", kept, model)
        return before._replace(held_out=self._stored("held_out", self.data.held_out.places, model))

    def nothing_before(self) -> BeforeTraining:
        """The same without a model: zeros."""
        pairs = self.data.rows
        sizes = (len(self.data.held_out.places), len(pairs))
        return BeforeTraining(*(np.zeros((size, pairs.contrasts, 2), np.float32) for size in sizes))

    def objective(self, model: ChatModel, before: BeforeTraining) -> ResponsePairObjective:
        """The objective with its measurements in between."""
        keys = self.keys
        pictures = self.data.rows.documents.pictures
        is_sharded = keys.train.zero_stage == 3 and self.world.world_size > 1

        def evaluate(step: int) -> dict[str, float] | None:
            return held_out.point_estimates(self._measured(model)) if step < keys.train.num_steps else None

        objective = ResponsePairObjective(
            model,
            self.data.rows,
            self.data.kept,
            before.reference,
            beta=keys.pairs.beta,
            batch_size=keys.chat.batch_size,
            seed=self.seed,
            idle=pictures.blank() if is_sharded and pictures is not None else None,
        )
        objective.evaluate, objective.after_every = evaluate, keys.eval_every
        objective.lr_scale_of = lr_scale_of(keys.rates, keys.train.lr)
        return objective

    def conclude(self, model: ChatModel, before: BeforeTraining) -> None:
        """Measure the trained model, called on all ranks; rank 0 writes what it is worth."""
        pairs, after = self.data.held_out, self._measured(model)
        if self.world.rank:
            return
        rows = held_out.rows_of(pairs, before.held_out, after)
        write_atomic(self.run / "pairs.jsonl", b"".join(held_out.line_of(row) for row in rows))
        fold = f"fold {self.keys.pairs.fold} of {self.keys.pairs.num_folds}"
        label = {"split": f"in-domain: {fold} of the data trained on, which shares no question and no image with it"}
        summary = label | held_out.summary_of(pairs, before.held_out, after, self.seed)
        write_json(self.run / "summary.json", summary)
        terminal.out(held_out.sentence_of(summary))

    def _measured(self, model: ChatModel) -> np.ndarray:
        with Precision(self.keys.train.precision, model.device).autocast():
            return held_out.shared_scores(self.data.held_out, model, self.keys.train.rows_per_forward, self.world)

    def _stored(self, name: str, places: Sequence[int], model: ChatModel) -> np.ndarray:
        def compute(keys: Sequence[Key]) -> np.ndarray:
            with Precision(self.keys.train.precision, model.device).autocast():
                numbers = [place for _, place in keys]
                return held_out.scores_of(model, self.data.rows, numbers, self.keys.train.rows_per_forward)

        found: Any = stored(self.run / "reference" / name, [(0, place) for place in places], compute, self.world)
        return found
