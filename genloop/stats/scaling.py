"""Rows of scaling_curve -> best-of-k curves of every judge and the oracle's ceiling, as numbers and as a table.

A row holds the candidates of one image: "correct" and, by judge, "scores", each a list; what a candidate costs.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from genloop.stats.best_of_k import best_of_k, ceiling
from genloop.stats.frontier import Curve
from genloop.stats.intervals import Interval
from genloop.stats.markdown import table_head, table_row

Row = Mapping[str, Any]
R = TypeVar("R")
Grouping = Literal["prompt", "image"]
CEILING = "oracle's ceiling"


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Every judge's curve, the ceiling last. Costs are in images without search."""

    curves: dict[str, Curve]
    bands: dict[str, list[Interval]]  # the score at k = 1, 2, ... with its interval
    pool_size: int  # of the smallest pool
    cost_unit: str  # "flops", or "generator_steps" where rows hold no flops
    one_image: dict[str, float]  # what one image without search costs

    @property
    def num_pools(self) -> int:
        return len(self.curves[CEILING].values)

    @property
    def num_prompts(self) -> int:
        return len(set(self.curves[CEILING].clusters))

    def to_json(self) -> dict[str, Any]:
        return {
            "pools": self.num_pools,
            "pool_size": self.pool_size,
            "prompts": self.num_prompts,
            "cost_unit": self.cost_unit,
            "one_image": self.one_image,
            "curves": [
                {
                    "judge": name,
                    "k": list(range(1, len(curve.cost) + 1)),
                    "cost": curve.cost.tolist(),
                    "score": [interval._asdict() for interval in self.bands[name]],
                    "tasks": {tag: curve.of_task(tag).score.tolist() for tag in curve.tasks},
                }
                for name, curve in self.curves.items()
            ],
        }


def scale(rows: Sequence[Row], seed: int, *, grouping: Grouping = "prompt", max_k: int | None = None) -> Scaling:
    """Best-of-k of all judges up to `max_k` (default: the smallest pool).

    A pool is all candidates of a prompt, or those of one image alone. ValueError when a pool is smaller than `max_k`.
    """
    pools = pools_of(rows, grouping, lambda row: (row["prompt_index"], row["sample"]))
    sizes = [sum(len(row["correct"]) for row in pool) for pool in pools]
    smallest = min(sizes)
    if max_k is not None and max_k > smallest:
        raise ValueError(f"max_k: found {max_k}, but the smallest pool has {smallest} candidates")
    judges = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    costs_known = all(row["cost"]["flops"] for row in rows)
    curves = {name: _curve(pools, name, max_k or smallest, costs_known) for name in [*judges, CEILING]}
    one = {"generator_steps": float(np.mean([row["cost"]["generator_steps"] for row in rows]))}
    if costs_known:
        one["flops"] = float(np.mean([row["cost"]["flops"] for row in rows]))
    bands = {name: curve.band(seed) for name, curve in curves.items()}
    return Scaling(curves, bands, smallest, "flops" if costs_known else "generator_steps", one)


def pools_of(rows: Sequence[R], grouping: Grouping, place: Callable[[R], tuple[int, int]]) -> list[list[R]]:
    """The rows of each pool, in the order of first appearance; `place`: (prompt_index, sample) of a row."""
    pools: dict[tuple[int, ...], list[R]] = {}
    for row in rows:
        pools.setdefault(place(row)[: 1 if grouping == "prompt" else 2], []).append(row)
    return list(pools.values())


def table(scaling: Scaling) -> str:
    """A Markdown table: the score at k, and what it costs, of every judge."""
    names = list(scaling.curves)
    unit = "operations" if scaling.cost_unit == "flops" else "generator steps"
    lines = [
        f"Best of k from {scaling.num_pools} pools of {scaling.num_prompts} prompts: mean of the tasks in %, 95 % "
        f"interval; cost in {unit}, relative to one image without search",
        "",
        *table_head(["k", *(cell for name in names for cell in (name, "cost"))]),
    ]
    for k in shown(len(scaling.bands[CEILING])):
        cells = [str(k)]
        for name in names:
            estimate, low, high = (f"{100 * share:.1f}" for share in scaling.bands[name][k - 1])
            cells += [f"{estimate} ({low} to {high})", f"{scaling.curves[name].cost[k - 1]:.4g}"]
        lines.append(table_row(cells))
    return "\n".join(lines) + "\n"


def shown(max_k: int) -> list[int]:
    """Which k a table shows: all up to 20, else the powers of two and the last."""
    if max_k <= 20:
        return list(range(1, max_k + 1))
    return [*(2**i for i in range(max_k.bit_length()) if 2**i < max_k), max_k]


def _curve(pools: Sequence[Sequence[Row]], judge: str, max_k: int, costs_known: bool) -> Curve:
    """One judge's best-of-k over all pools; a single candidate needs no judge call."""
    values, costs = [], []
    for pool in pools:
        correct = [float(value) for row in pool for value in row["correct"]]
        if judge == CEILING:
            values.append(ceiling(correct, max_k))
        else:
            given = [row["scores"].get(judge, [None] * len(row["correct"])) for row in pool]  # a row may lack a judge
            known = [math.nan if score is None else score for scores in given for score in scores]
            values.append(best_of_k(known, correct, max_k))
        judging = (
            [row["cost"]["judging"].get(judge, 0.0) / row["cost"]["flops"] for row in pool] if costs_known else [0]
        )
        costs.append(np.arange(1, max_k + 1) * (1 + np.mean(judging) * (np.arange(max_k) > 0)))
    clusters = [(pool[0]["prompt"], json.dumps(pool[0]["metadata"], sort_keys=True)) for pool in pools]
    return Curve(np.array(values), np.array(costs), clusters, [pool[0]["tag"] for pool in pools])
