"""What a model is worth on held-out pairs: how often it finds the better answer, against the model at the start.

C = contrasts of a pair. A model that reads answers finds the one with the higher mean log p, as a judge does; one that
gives verdicts goes by the mean probability over both orders.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from genloop.distributed import World
from genloop.models.common.memory import Budget
from genloop.models.qwen.model import ChatModel
from genloop.stats.intervals import Interval
from genloop.stats.resampling import cluster_bootstrap, paired_bootstrap
from genloop.training.loading import mapped
from genloop.training.objectives.response_pairs.objective import side_means
from genloop.training.objectives.response_pairs.rows import ResponseRows
from genloop.training.reductions import sum_over_ranks


@torch.no_grad()
def scores_of(model: ChatModel, rows: ResponseRows, places: Sequence[int], rows_per_forward: int) -> np.ndarray:
    """Pairs by their places -> means of log p (n, C, 2), float32, by a model as it is."""

    def compute(part: Sequence[int]) -> Any:
        batch = mapped(rows.sides(part), lambda tensor: tensor.to(model.device))
        yield from side_means(model, rows, batch).float().cpu().numpy()

    was_training = model.training
    model.eval()
    found = Budget(rows_per_forward, "train.rows_per_forward").run(places, 1, compute)
    model.train(was_training)
    return np.stack(found) if found else np.empty((0, rows.contrasts, 2), np.float32)


@dataclass(frozen=True, eq=False)
class HeldOutPairs:
    """Places of the pairs that are measured; clusters (n,) are those about one image."""

    rows: ResponseRows
    places: list[int]
    clusters: list[int]

    def __len__(self) -> int:
        return len(self.places)


def preferences(scores: np.ndarray) -> np.ndarray:
    """(n, C, 2) -> (n,): P(the right side) as a mean over the contrasts."""
    gaps = (scores[..., 0] - scores[..., 1]).astype(np.float64)
    return (0.5 * (1 + np.tanh(gaps / 2))).mean(1)


def is_right(chances: np.ndarray) -> np.ndarray:
    """(n,) -> 1 where the better answer is found, half for ties."""
    return (np.sign(chances - 0.5) + 1) / 2


def summary_of(held_out: HeldOutPairs, before: np.ndarray, after: np.ndarray, seed: int) -> dict[str, Any]:
    """Scores (n, C, 2) at the start and at the end -> accuracies and their paired difference, [estimate, low, high]."""
    first, last = (is_right(preferences(scores)).tolist() for scores in (before, after))
    gaps = (after[..., 0] - after[..., 1]).mean(1).tolist()
    found: dict[str, Interval] = {
        "accuracy": cluster_bootstrap(last, held_out.clusters, seed, ends=(0.0, 1.0)),
        "accuracy at the start": cluster_bootstrap(first, held_out.clusters, seed, ends=(0.0, 1.0)),
        "gain": paired_bootstrap(last, first, held_out.clusters, seed),
        "margin": cluster_bootstrap(gaps, held_out.clusters, seed),
    }
    counts = {"pairs": len(held_out), "images": len(set(held_out.clusters))}
    return counts | {name: list(interval) for name, interval in found.items()}


def shared_scores(held_out: HeldOutPairs, model: ChatModel, rows_per_forward: int, world: World) -> np.ndarray:
    """(n, C, 2): `scores_of`, the pairs shared by the ranks; the same on all."""
    found = np.zeros((len(held_out), held_out.rows.contrasts, 2))
    own = slice(world.rank, None, world.world_size)
    found[own] = scores_of(model, held_out.rows, held_out.places[own], rows_per_forward)
    return sum_over_ranks(found, world)


def point_estimates(scores: np.ndarray) -> dict[str, float]:
    """For a line of metrics.jsonl."""
    gaps = scores[..., 0] - scores[..., 1]
    return {"val_accuracy": float(is_right(preferences(scores)).mean()), "val_margin": float(gaps.mean())}


def rows_of(held_out: HeldOutPairs, before: np.ndarray, after: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row for each held-out pair, for RUN/pairs.jsonl: P(the better answer) at the start and at the end."""
    chances = zip(preferences(before).tolist(), preferences(after).tolist(), strict=True)
    for place, cluster, (first, last) in zip(held_out.places, held_out.clusters, chances, strict=True):
        pair = held_out.rows.pairs[place]
        known = {"row": place, "id": pair.id, "group": pair.group, "source": pair.source, "cluster": cluster}
        yield known | {"best": int(held_out.rows.best[place]), "p_at_the_start": first, "p": last}


def line_of(row: dict[str, Any]) -> bytes:
    """One line of RUN/pairs.jsonl."""
    return f"{json.dumps(row)}\n".encode()


def sentence_of(summary: dict[str, Any]) -> str:
    """What a terminal says of a summary."""
    last, first, gain = (summary[name] for name in ("accuracy", "accuracy at the start", "gain"))
    return (
        f"held out: {summary['pairs']} pairs about {summary['images']} images, {last[0]:.1%} "
        f"[{last[1]:.1%}, {last[2]:.1%}] judged rightly, {first[0]:.1%} at the start, "
        f"gain {gain[0]:+.1%} [{gain[1]:+.1%}, {gain[2]:+.1%}]"
    )
