"""What a strategy gains over a curve of rising budgets at equal cost.

Between two budgets a curve is interpolated linearly, the score of a random mixture of the two. Resampling draws the
same prompts within their task for both sides of a comparison, and their costs with them.
P = items (images or pools of candidates), K = budgets, C = prompts of a task, R = resamples, T = tasks.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from genloop.stats.frontier import Curve, Sums, prompts_of
from genloop.stats.intervals import Interval
from genloop.stats.resampling import Statistic, bootstrap

_ROUNDING = 1e-9  # by how much of itself a cost may miss a curve's end


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


def place_of(curve: Curve, cost: float) -> float:
    """Which budget costs so much: 2.5 is half way between the second and the third.

    ValueError when none does.
    """
    first, last = curve.cost[0], curve.cost[-1]
    if not first * (1 - _ROUNDING) <= cost <= last * (1 + _ROUNDING):
        hint = "; draw a larger pool" if cost > last else ""
        raise ValueError(f"a cost of {cost:g} lies outside the curve, which goes from {first:g} to {last:g}{hint}")
    return float(np.interp(cost, curve.cost, np.arange(1, len(curve.cost) + 1)))


def cost_of(curve: Curve, score: float) -> float | None:
    """The least cost at which the curve reaches a score; None when it never does."""
    if curve.score[0] >= score:
        return float(curve.cost[0])
    for k in np.flatnonzero(curve.score[1:] >= score)[:1]:
        return float(np.interp(score, curve.score[k : k + 2], curve.cost[k : k + 2]))
    return None


def _gain(strategy: Curve, curve: Curve, place: float | None, seed: int, num_resamples: int) -> Gain:
    if strategy.values.shape[1] != 1:
        raise ValueError(f"a strategy has one budget, found {strategy.values.shape[1]}")
    prompts = _shared_prompts(strategy, curve)
    ours, theirs = Sums.of(strategy, prompts), Sums.of(curve, prompts)
    found = place_of(curve, strategy.cost[0]) if place is None else place
    *tasks, overall, ratio = bootstrap(
        _gain_statistic(ours, theirs, place),
        ours.strata,
        seed,
        extended=_gain_statistic(ours.extended(1.0, 0.0), theirs.extended(0.0, 1.0), place),
        num_resamples=num_resamples,
        width=len(curve.tasks) * len(curve.cost),
    )
    return Gain(found, float(strategy.cost[0]), ratio, overall, dict(zip(strategy.tasks, tasks)))


def _gain_statistic(ours: Sums, theirs: Sums, place: float | None) -> Statistic:
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
    return prompts_of(strategy)


def _at(numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(R, T, K) at fractional places (R,), counted from 1 -> (R, T)"""
    lower = np.clip(np.floor(places).astype(int) - 1, 0, numbers.shape[2] - 1)
    upper = np.minimum(lower + 1, numbers.shape[2] - 1)
    share = (places - 1 - lower)[:, None]
    rows = np.arange(len(numbers))
    return (1 - share) * numbers[rows, :, lower] + share * numbers[rows, :, upper]
