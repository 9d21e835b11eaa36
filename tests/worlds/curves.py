"""Curves of score against cost with known values."""

import numpy as np

from genloop.stats.best_of_k import best_of_k
from genloop.stats.frontier import Curve


def curve_of(values, costs, *, clusters=None, tags=None) -> Curve:
    """Values (P, K) at costs (K,) or (P, K)."""
    values = np.asarray(values, dtype=np.float64)
    costs = np.broadcast_to(np.asarray(costs, dtype=np.float64), values.shape)
    clusters = list(range(len(values))) if clusters is None else clusters
    return Curve(values, costs, clusters, ["a"] * len(values) if tags is None else tags)


def made_up(rng: np.random.Generator, *, num_prompts: int = 40, pool_size: int = 8) -> tuple[Curve, np.ndarray]:
    """Best-of-k of two tasks of unlike difficulty, 10 units of cost a candidate -> curve, rate of every prompt."""
    rates = np.concatenate([rng.beta(4, 2, num_prompts), rng.beta(1, 4, num_prompts)])
    right = rng.random((len(rates), pool_size)) < rates[:, None]
    scores = rng.normal(size=right.shape) + 1.2 * right
    values = [best_of_k(s, v) for s, v in zip(scores, right)]
    tags = ["easy"] * num_prompts + ["hard"] * num_prompts
    return curve_of(values, 10.0 * np.arange(1, pool_size + 1), tags=tags), rates
