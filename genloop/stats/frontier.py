"""Score against cost: curves of rising budgets with their intervals.

Scores and costs are means by task, and unweighted means of the tasks, as everywhere in the suite. Resampling draws
prompts within their task, and their costs with them.
P = items (images or pools of candidates), K = budgets, C = prompts of a task, R = resamples, T = tasks.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genloop.stats.clusters import numbered
from genloop.stats.intervals import Interval
from genloop.stats.resampling import bootstrap


@dataclass(frozen=True, eq=False)
class Curve:
    """What each of K rising budgets buys on P items. A single strategy is a curve with K = 1.

    `clusters` identify the prompt of each item by text and metadata, not by its line in a file.
    """

    values: np.ndarray  # (P, K) expected score of an item at a budget
    costs: np.ndarray  # (P, K) in any unit
    clusters: Sequence[Hashable]  # P
    tags: Sequence[str]  # P

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != self.costs.shape or not self.values.size:
            raise ValueError(f"a curve needs values and costs (P, K), found {self.values.shape}, {self.costs.shape}")
        if not len(self.values) == len(self.clusters) == len(self.tags):
            raise ValueError(
                f"a curve of {len(self.values)} items has {len(self.clusters)} clusters and {len(self.tags)} tags"
            )
        if (np.diff(self.cost) <= 0).any():
            raise ValueError(f"the budgets of a curve must rise, found costs {self.cost.tolist()}")

    @cached_property
    def score(self) -> np.ndarray:
        """(K,) mean of the tasks."""
        return self._mean(self.values)

    @cached_property
    def cost(self) -> np.ndarray:
        """(K,) mean of the tasks."""
        return self._mean(self.costs)

    @property
    def tasks(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(self.tags))

    def band(self, seed: int) -> list[Interval]:
        """The score at every budget with its 95 % interval; all budgets share their resamples."""
        sums = Sums.of(self, prompts_of(self))
        extended = sums.extended(0.0, 1.0)
        return bootstrap(
            lambda weights: sums.task_means(weights)[0].mean(axis=1),
            sums.strata,
            seed,
            extended=lambda weights: extended.task_means(weights)[0].mean(axis=1),
            width=len(self.tasks) * len(self.cost),
        )

    def of_task(self, tag: str) -> "Curve":
        """The items of one task."""
        rows = [row for row, other in enumerate(self.tags) if other == tag]
        return Curve(self.values[rows], self.costs[rows], [self.clusters[r] for r in rows], [tag] * len(rows))

    def _mean(self, numbers: np.ndarray) -> np.ndarray:
        tags = np.asarray(self.tags)
        return np.mean([numbers[tags == tag].mean(axis=0) for tag in self.tasks], axis=0)


@dataclass(frozen=True, slots=True)
class Sums:
    """Scores and costs of a curve, summed over the items of each prompt."""

    values: np.ndarray  # (C, K)
    costs: np.ndarray  # (C, K)
    counts: np.ndarray  # (C,) items
    strata: np.ndarray  # (C,) number of the task

    @classmethod
    def of(cls, curve: Curve, prompts: Sequence[tuple[str, Hashable]]) -> "Sums":
        number = {prompt: i for i, prompt in enumerate(prompts)}
        index = np.array([number[prompt] for prompt in zip(curve.tags, curve.clusters)])
        values, costs = (np.zeros((len(prompts), len(curve.cost))) for _ in range(2))
        np.add.at(values, index, curve.values)
        np.add.at(costs, index, curve.costs)
        return cls(values, costs, np.bincount(index).astype(np.float64), numbered([tag for tag, _ in prompts])[0])

    def extended(self, *scores: float) -> "Sums":
        """With more prompts in each task, of average size and cost, which have these scores at every budget."""
        tasks, size, num_budgets = np.unique(self.strata), self.counts.mean(), self.values.shape[1]
        costs = [self.costs[self.strata == t].sum(axis=0) / self.counts[self.strata == t].sum() for t in tasks]
        return Sums(
            np.vstack([self.values, np.repeat(np.tile(scores, len(tasks))[:, None] * size, num_budgets, axis=1)]),
            np.vstack([self.costs, np.repeat(np.array(costs) * size, len(scores), axis=0)]),
            np.append(self.counts, np.full(len(scores) * len(tasks), size)),
            np.append(self.strata, np.repeat(tasks, len(scores))),
        )

    def task_means(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of the prompts (R, C) -> mean scores and mean costs of the tasks, (R, T, K) each."""
        means: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for task in np.unique(self.strata):
            rows = self.strata == task
            counts = (weights[:, rows] @ self.counts[rows])[:, None]
            for found, sums in zip(means, (self.values, self.costs)):
                found.append(weights[:, rows] @ sums[rows] / counts)
        return np.stack(means[0], axis=1), np.stack(means[1], axis=1)


def prompts_of(curve: Curve) -> list[tuple[str, Hashable]]:
    """(task, prompt), the tasks and their prompts in order of first appearance."""
    unique = dict.fromkeys(zip(curve.tags, curve.clusters))
    return [(tag, cluster) for task in curve.tasks for tag, cluster in unique if tag == task]
