"""A training on pairs from its first measurement to its last: RUN/reference, RUN/summary.json, RUN/pairs.jsonl."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop import terminal
from genloop.distributed import World
from genloop.models.qwen.model import ChatModel
from genloop.rundir import write_atomic, write_json
from genloop.training.objectives.preference.reference import Key, stored
from genloop.training.objectives.response_pairs import held_out
from genloop.training.objectives.response_pairs.data import ResponseSides
from genloop.training.objectives.response_pairs.objective import ResponsePairObjective
from genloop.training.objectives.response_pairs.settings import PairSettings
from genloop.training.precision import Precision
from genloop.training.settings import LoopSettings


@dataclass(frozen=True, eq=False)
class PairTask:
    """What is trained on, and where its numbers go."""

    data: ResponseSides
    settings: PairSettings
    train: LoopSettings
    run: Path
    world: World
    seed: int

    def at_the_start(self, model: ChatModel) -> tuple[np.ndarray, np.ndarray]:
        """Means of log p by the model before its first step: of the held-out pairs (n, C, 2), and of all (N, C, 2).

        The second is zeros where the loss does not look at it. Both are kept, as a resumed run has another model.
        """
        reference, kept = self.no_reference(), self.data.kept
        if self.settings.loss == "dpo":
            reference[kept] = self._stored("train", kept, model)
        return self._stored("held_out", self.data.held_out.places, model), reference

    def no_reference(self) -> np.ndarray:
        """(N, C, 2) zeros."""
        return np.zeros((len(self.data.rows), self.data.rows.contrasts, 2), np.float32)

    def objective(
        self,
        model: ChatModel,
        reference: np.ndarray,
        *,
        batch_size: int,
        lr_scale_of: Callable[[str], float],
        evaluate_every: int,
    ) -> ResponsePairObjective:
        """The objective with its measurements in between."""
        pictures = self.data.rows.documents.pictures
        is_sharded = self.train.zero_stage == 3 and self.world.world_size > 1

        def evaluate(step: int) -> dict[str, float] | None:
            return held_out.point_estimates(self._measured(model)) if step < self.train.num_steps else None

        return ResponsePairObjective(
            model,
            self.data.rows,
            self.data.kept,
            reference,
            beta=self.settings.beta,
            batch_size=batch_size,
            seed=self.seed,
            lr_scale_of=lr_scale_of,
            evaluate=evaluate,
            evaluate_every=evaluate_every,
            idle=pictures.blank() if is_sharded and pictures is not None else None,
        )

    def conclude(self, model: ChatModel, before: np.ndarray) -> None:
        """Measure the trained model, called on all ranks; rank 0 writes what it is worth."""
        pairs, after = self.data.held_out, self._measured(model)
        if self.world.rank:
            return
        rows = held_out.rows_of(pairs, before, after)
        write_atomic(self.run / "pairs.jsonl", b"".join(held_out.line_of(row) for row in rows))
        fold = f"fold {self.settings.fold} of {self.settings.num_folds}"
        label = {"split": f"in-domain: {fold} of the data trained on, which shares no question and no image with it"}
        summary = label | held_out.summary_of(pairs, before, after, self.seed)
        write_json(self.run / "summary.json", summary)
        terminal.out(held_out.sentence_of(summary))

    def _measured(self, model: ChatModel) -> np.ndarray:
        with Precision(self.train.precision, model.device).autocast():
            return held_out.shared_scores(self.data.held_out, model, self.train.rows_per_forward, self.world)

    def _stored(self, name: str, places: Sequence[int], model: ChatModel) -> np.ndarray:
        def compute(keys: Sequence[Key]) -> np.ndarray:
            with Precision(self.train.precision, model.device).autocast():
                numbers = [place for _, place in keys]
                return held_out.scores_of(model, self.data.rows, numbers, self.train.rows_per_forward)

        found: Any = stored(self.run / "reference" / name, [(0, place) for place in places], compute, self.world)
        return found
