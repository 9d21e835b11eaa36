"""Score against cost: curves of rising budgets, and what another strategy gains over a curve at equal cost.

Between two budgets a curve is interpolated linearly, the score of a random mixture of the two. Scores and costs are
means by task, and unweighted means of the tasks, as everywhere in the suite. Resampling draws prompts within their
task, the same ones for both sides of a comparison, and their costs with them.
P = items (images or pools of candidates), K = budgets, C = prompts of a task, R = resamples, T = tasks.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genloop.stats.clusters import numbered
from genloop.stats.intervals import Interval
from genloop.stats.resampling import Statistic, bootstrap

_ROUNDING = 1e-9  # by how much of itself a cost may miss a curve's end


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

    def place_of(self, cost: float) -> float:
        """Which budget costs so much: 2.5 is half way between the second and the third.

        ValueError when none does.
        """
        first, last = self.cost[0], self.cost[-1]
        if not first * (1 - _ROUNDING) <= cost <= last * (1 + _ROUNDING):
            hint = "; draw a larger pool" if cost > last else ""
            raise ValueError(f"a cost of {cost:g} lies outside the curve, which goes from {first:g} to {last:g}{hint}")
        return float(np.interp(cost, self.cost, np.arange(1, len(self.cost) + 1)))

    def cost_of(self, score: float) -> float | None:
        """The least cost at which the curve reaches a score; None when it never does."""
        if self.score[0] >= score:
            return float(self.cost[0])
        for k in np.flatnonzero(self.score[1:] >= score)[:1]:
            return float(np.interp(score, self.score[k : k + 2], self.cost[k : k + 2]))
        return None

    def band(self, seed: int, *, num_resamples: int = 4000) -> list[Interval]:
        """The score at every budget with its 95 % interval; all budgets share their resamples."""
        sums = _Sums.of(self, _prompts(self))
        extended = sums.extended(0.0, 1.0)
        return bootstrap(
            lambda weights: sums.task_means(weights)[0].mean(axis=1),
            sums.strata,
            seed,
            extended=lambda weights: extended.task_means(weights)[0].mean(axis=1),
            num_resamples=num_resamples,
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
class Gain:
    """The score of a strategy minus that of a curve at one place, each with a 95 % interval."""

    place: float  # on the curve: 2.5 is half way between its second and third budget
    cost: float  # of the strategy
    cost_ratio: Interval  # the strategy's cost over the curve's at that place
    overall: Interval
    tasks: dict[str, Interval]


def gain_at_equal_cost(strategy: Curve, curve: Curve, seed: int, *, num_resamples: int = 4000) -> Gain:
    """A strategy (K = 1) minus the point of `curve` that costs as much, all tasks together.

    The place on the curve is found anew in every resample, so the interval includes the uncertainty of the costs.
    ValueError when the two are over other prompts, or when the curve has no such cost.
    """
    return _gain(strategy, curve, None, seed, num_resamples)


def gain_at(strategy: Curve, curve: Curve, place: float, seed: int, *, num_resamples: int = 4000) -> Gain:
    """A strategy (K = 1) minus `curve` at a place, even if costs differ; `cost_ratio` is the ratio of the costs."""
    if not 1 <= place <= len(curve.cost):
        raise ValueError(f"place must be between 1 and {len(curve.cost)}, found {place:g}")
    return _gain(strategy, curve, place, seed, num_resamples)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Scores and costs of a curve, summed over the items of each prompt."""

    values: np.ndarray  # (C, K)
    costs: np.ndarray  # (C, K)
    counts: np.ndarray  # (C,) items
    strata: np.ndarray  # (C,) number of the task

    @classmethod
    def of(cls, curve: Curve, prompts: Sequence[tuple[str, Hashable]]) -> "_Sums":
        number = {prompt: i for i, prompt in enumerate(prompts)}
        index = np.array([number[prompt] for prompt in zip(curve.tags, curve.clusters)])
        values, costs = (np.zeros((len(prompts), len(curve.cost))) for _ in range(2))
        np.add.at(values, index, curve.values)
        np.add.at(costs, index, curve.costs)
        return cls(values, costs, np.bincount(index).astype(np.float64), numbered([tag for tag, _ in prompts])[0])

    def extended(self, *scores: float) -> "_Sums":
        """With more prompts in each task, of average size and cost, which have these scores at every budget."""
        tasks, size, num_budgets = np.unique(self.strata), self.counts.mean(), self.values.shape[1]
        costs = [self.costs[self.strata == t].sum(axis=0) / self.counts[self.strata == t].sum() for t in tasks]
        return _Sums(
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


def _gain(strategy: Curve, curve: Curve, place: float | None, seed: int, num_resamples: int) -> Gain:
    if strategy.values.shape[1] != 1:
        raise ValueError(f"a strategy has one budget, found {strategy.values.shape[1]}")
    prompts = _shared_prompts(strategy, curve)
    ours, theirs = _Sums.of(strategy, prompts), _Sums.of(curve, prompts)
    found = curve.place_of(strategy.cost[0]) if place is None else place
    *tasks, overall, ratio = bootstrap(
        _gain_statistic(ours, theirs, place),
        ours.strata,
        seed,
        extended=_gain_statistic(ours.extended(1.0, 0.0), theirs.extended(0.0, 1.0), place),
        num_resamples=num_resamples,
        width=len(curve.tasks) * len(curve.cost),
    )
    return Gain(found, float(strategy.cost[0]), ratio, overall, dict(zip(strategy.tasks, tasks)))


def _gain_statistic(ours: _Sums, theirs: _Sums, place: float | None) -> Statistic:
    """Weights (R, C) -> (R, T + 2): the gain in each task, that in all tasks together, the ratio of the costs."""

    def gains(weights: np.ndarray) -> np.ndarray:
        (score, spent), (scores, prices) = ours.task_means(weights), theirs.task_means(weights)
        cost = spent.mean(axis=1)[:, 0]  # (R,)
        places = np.full(len(weights), place, dtype=np.float64)
        if place is None:
            budgets = np.arange(1, prices.shape[2] + 1)
            rising = np.maximum.accumulate(prices.mean(axis=1), axis=1)
            places = np.array([np.interp(one, costs, budgets) for one, costs in zip(cost, rising)])
        by_task = score[:, :, 0] - _at(scores, places)
        return np.column_stack([by_task, by_task.mean(axis=1), cost / _at(prices, places).mean(axis=1)])

    return gains


def _shared_prompts(strategy: Curve, curve: Curve) -> list[tuple[str, Hashable]]:
    """The prompts of a strategy; ValueError unless the curve has the same ones."""
    ours, theirs = ({*zip(side.tags, side.clusters)} for side in (strategy, curve))
    if ours != theirs:
        raise ValueError(
            f"only the same prompts can be compared, found {len(ours)} and {len(theirs)}, {len(ours & theirs)} in both"
        )
    return _prompts(strategy)


def _prompts(curve: Curve) -> list[tuple[str, Hashable]]:
    """(task, prompt), the tasks and their prompts in order of first appearance."""
    unique = dict.fromkeys(zip(curve.tags, curve.clusters))
    return [(tag, cluster) for task in curve.tasks for tag, cluster in unique if tag == task]


def _at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(R, T, K) at fractional places (R,), counted from 1 -> (R, T)"""
    lower = np.clip(np.floor(places).astype(int) - 1, 0, numbers.shape[2] - 1)
    upper = np.minimum(lower + 1, numbers.shape[2] - 1)
    share = (places - 1 - lower)[:, None]
    rows = np.arange(len(numbers))
    return (1 - share) * numbers[rows, :, lower] + share * numbers[rows, :, upper]
