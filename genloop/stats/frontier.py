"""Score against cost: curves of rising budgets, and what another strategy gains over a curve at equal cost.

Between two budgets a curve is a straight line, which is what mixing the two at random would give. Scores and costs are
means by task, and unweighted means of the tasks, as everywhere in the suite. Resampling draws prompts within their
task, the same ones for both sides of a comparison, and their costs with them.
P = items (images or pools of candidates), K = budgets, C = prompts of a task, R = resamples, T = tasks.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genloop.stats.intervals import Interval, clustered_wilson, mean_of, paired_bootstrap

_AT_A_TIME = 64  # budgets, to bound memory
_ROUNDING = 1e-9  # by how much of itself a cost may miss a curve's end


@dataclass(frozen=True, eq=False)
class Curve:
    """What each of K rising budgets buys on P items. A single strategy is a curve with K = 1.

    `clusters` say which items are of the same prompt: its text and metadata, not its line in a file.
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

    def score_at(self, cost: float) -> float:
        """The score that so much buys. ValueError outside of the curve."""
        return float(np.interp(self.place_of(cost), np.arange(1, len(self.cost) + 1), self.score))

    def cost_of(self, score: float) -> float | None:
        """The least cost at which the curve reaches a score; None when it never does."""
        if self.score[0] >= score:
            return float(self.cost[0])
        for k in np.flatnonzero(self.score[1:] >= score)[:1]:
            return float(np.interp(score, self.score[k : k + 2], self.cost[k : k + 2]))
        return None

    def band(self, seed: int, *, num_resamples: int = 4000) -> list[Interval]:
        """The score at every budget with its 95 % interval; all budgets share their resamples.

        Where every prompt scores alike there is nothing to resample; then Wilson's intervals of the tasks are taken.
        """
        prompts = _prompts(self)
        weights = _weights(prompts, seed, num_resamples)
        found = []
        for start in range(0, self.values.shape[1], _AT_A_TIME):
            part = _task_means(self, self.values[:, start : start + _AT_A_TIME], prompts, weights).mean(axis=1)
            found += [_percentiles(column) for column in part.T]
        return [f if f.low < f.high else self._wilson(k) for k, f in enumerate(found)]

    def of_task(self, tag: str) -> "Curve":
        """The items of one task."""
        rows = [row for row, other in enumerate(self.tags) if other == tag]
        return Curve(self.values[rows], self.costs[rows], [self.clusters[r] for r in rows], [tag] * len(rows))

    def _wilson(self, k: int) -> Interval:
        tasks = [self.of_task(tag) for tag in self.tasks]
        return mean_of([clustered_wilson(task.values[:, k].tolist(), task.clusters) for task in tasks])

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


def join(curves: Sequence[Curve]) -> Curve:
    """One curve through strategies of one family over the same items, cheapest first."""
    first = curves[0]
    for other in curves:
        if list(other.clusters) != list(first.clusters) or list(other.tags) != list(first.tags):
            raise ValueError("only curves over the same items in the same order make one curve")
    values, costs = (np.hstack([getattr(curve, name) for curve in curves]) for name in ("values", "costs"))
    order = np.argsort([cost for curve in curves for cost in curve.cost], kind="stable")
    return Curve(values[:, order], costs[:, order], first.clusters, first.tags)


def gain_at_equal_cost(strategy: Curve, curve: Curve, seed: int, *, num_resamples: int = 4000) -> Gain:
    """A strategy (K = 1) minus the point of `curve` that costs as much, all tasks together.

    The place on the curve is found anew in every resample, so the interval covers the doubt about the costs too.
    ValueError when the two are over other prompts, or when the curve has no such cost.
    """
    return _gain(strategy, curve, None, seed, num_resamples)


def gain_at(strategy: Curve, curve: Curve, place: float, seed: int, *, num_resamples: int = 4000) -> Gain:
    """A strategy (K = 1) minus `curve` at a place, whatever the two cost; `cost_ratio` says how that compares."""
    if not 1 <= place <= len(curve.cost):
        raise ValueError(f"place must be between 1 and {len(curve.cost)}, found {place:g}")
    return _gain(strategy, curve, place, seed, num_resamples)


def _gain(strategy: Curve, curve: Curve, place: float | None, seed: int, num_resamples: int) -> Gain:
    if strategy.values.shape[1] != 1:
        raise ValueError(f"a strategy has one budget, found {strategy.values.shape[1]}")
    prompts = _shared_prompts(strategy, curve)
    weights = _weights(prompts, seed, num_resamples)
    ours, our_costs = (_task_means(strategy, side, prompts, weights) for side in (strategy.values, strategy.costs))
    theirs, their_costs = (_task_means(curve, side, prompts, weights) for side in (curve.values, curve.costs))
    spent, prices = our_costs.mean(axis=1)[:, 0], their_costs.mean(axis=1)  # (1 + R,), (1 + R, K)
    if place is None:
        place = curve.place_of(strategy.cost[0])
        budgets = np.arange(1, prices.shape[1] + 1)
        rising = np.maximum.accumulate(prices, axis=1)
        places = np.array([np.interp(cost, costs, budgets) for cost, costs in zip(spent, rising)])
    else:
        places = np.full(len(spent), place)
    gains = ours[:, :, 0] - _at(theirs, places)  # (1 + R, T)
    ratio = _percentiles(spent / _at(their_costs, places).mean(axis=1))
    tasks = {
        tag: _interval(gains[:, number], strategy.of_task(tag), curve.of_task(tag), place, seed)
        for number, tag in enumerate(prompts)
    }
    overall = _interval(gains.mean(axis=1), strategy, curve, place, seed)
    return Gain(place, float(strategy.cost[0]), ratio, overall, tasks)


def _shared_prompts(strategy: Curve, curve: Curve) -> dict[str, list[Hashable]]:
    """The prompts of a strategy by task; ValueError unless the curve has the same ones."""
    ours, theirs = ({*zip(side.tags, side.clusters)} for side in (strategy, curve))
    if ours != theirs:
        raise ValueError(
            f"only the same prompts can be compared, found {len(ours)} and {len(theirs)}, {len(ours & theirs)} in both"
        )
    return _prompts(strategy)


def _prompts(curve: Curve) -> dict[str, list[Hashable]]:
    """{task: its prompts}"""
    unique = dict.fromkeys(zip(curve.tags, curve.clusters))
    return {task: [cluster for tag, cluster in unique if tag == task] for task in curve.tasks}


def _weights(prompts: Mapping[str, Sequence[Hashable]], seed: int, num_resamples: int) -> dict[str, np.ndarray]:
    """{task: how often each of its prompts counts (1 + R, C)}: once in the first row, then as drawn."""
    rng = np.random.default_rng(seed)
    drawn = {
        tag: rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), num_resamples)
        for tag, clusters in prompts.items()
    }
    return {tag: np.vstack([np.ones_like(counts[:1]), counts]) for tag, counts in drawn.items()}


def _task_means(
    curve: Curve, numbers: np.ndarray, prompts: Mapping[str, Sequence[Hashable]], weights: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Means (1 + R, T, K) of numbers (P, K) of a curve's items: each task under each row of weights."""
    means = []
    for tag, clusters in prompts.items():
        sums, counts = _by_prompt(curve, numbers, tag, clusters)
        means.append(weights[tag] @ sums / (weights[tag] @ counts)[:, None])
    return np.stack(means, axis=1)


def _by_prompt(
    curve: Curve, numbers: np.ndarray, tag: str, clusters: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (C, K) of numbers (P, K) and the number of items (C,) of each prompt of a task."""
    number = {cluster: i for i, cluster in enumerate(clusters)}
    rows = [row for row, other in enumerate(curve.tags) if other == tag]
    index = np.array([number[curve.clusters[row]] for row in rows])
    sums = np.zeros((len(clusters), numbers.shape[1]))
    np.add.at(sums, index, numbers[rows])
    return sums, np.bincount(index, minlength=len(clusters)).astype(np.float64)


def _at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(R, T, K) at fractional places (R,), counted from 1 -> (R, T)"""
    lower = np.clip(np.floor(places).astype(int) - 1, 0, numbers.shape[2] - 1)
    upper = np.minimum(lower + 1, numbers.shape[2] - 1)
    share = (places - 1 - lower)[:, None]
    rows = np.arange(len(numbers))
    return (1 - share) * numbers[rows, :, lower] + share * numbers[rows, :, upper]


def _interval(numbers: np.ndarray, strategy: Curve, curve: Curve, place: float, seed: int) -> Interval:
    """The first number with the percentiles of the others; where all are equal, as `paired_bootstrap` has it."""
    found = _percentiles(numbers)
    if found.low < found.high:
        return found
    prompts = _prompts(strategy)
    ours, theirs = (_prompt_means(side, prompts) for side in (strategy, curve))  # (C, 1), (C, K)
    at_place = _at(theirs[:, None], np.full(len(theirs), place))[:, 0]
    tags = [tag for tag, clusters in prompts.items() for _ in clusters]
    wide = paired_bootstrap(ours[:, 0].tolist(), at_place.tolist(), range(len(tags)), seed, tags=tags)
    return Interval(found.estimate, wide.low, wide.high)


def _prompt_means(curve: Curve, prompts: Mapping[str, Sequence[Hashable]]) -> np.ndarray:
    """Mean values (C, K) of every prompt, task by task."""
    parts = [_by_prompt(curve, curve.values, tag, clusters) for tag, clusters in prompts.items()]
    return np.vstack([sums / counts[:, None] for sums, counts in parts])


def _percentiles(numbers: np.ndarray) -> Interval:
    low, high = np.quantile(numbers[1:], [0.025, 0.975])
    return Interval(float(numbers[0]), float(low), float(high))
