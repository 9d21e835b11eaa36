"""Accuracy by task and overall, each with the error bar that holds for it: a bootstrap over prompts, or Wilson's.

Measured on simulated evaluations with several images a prompt (benchmarks/geneval_intervals.md): a task's bootstrap
covers as little as 84 % with 5 prompts and 91 % with 20, Wilson's interval at the effective sample size 93 to 100 %;
with 50 prompts and more both cover about 95 %. Hence `kind` "bootstrap" uses it from FEW prompts on.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from genloop.records import TAGS
from genloop.stats.intervals import Interval, clustered_wilson, mean_of
from genloop.stats.resampling import cluster_bootstrap

Kind = Literal["wilson", "bootstrap"]
Method = Literal["wilson", "bootstrap", "combined"]
FEW = 50  # prompts below which a task's bootstrap interval is too narrow
MARKS: Mapping[Method, str] = {"bootstrap": "", "wilson": " w", "combined": " c"}  # behind an interval in a table
_LEGEND: Mapping[Method, str] = {
    "bootstrap": "bootstrap over prompts",
    "wilson": "w: Wilson's at the effective sample size",
    "combined": "c: combined from those of the tasks",
}


@dataclass(frozen=True, slots=True)
class Rate:
    """An accuracy, and how its interval was found."""

    interval: Interval
    method: Method

    def to_json(self) -> dict[str, Any]:
        """{"estimate", "low", "high", "method"}"""
        return {**self.interval._asdict(), "method": self.method}


@dataclass(frozen=True, slots=True)
class Rates:
    """Each task in GenEval's order, unknown ones last, and the unweighted mean of the tasks."""

    tasks: Mapping[str, Rate]
    overall: Rate


def rates(
    values: Sequence[float],
    prompts: Sequence[Hashable],
    tags: Sequence[str],
    *,
    kind: Kind = "bootstrap",
    seed: int = 0,
    num_resamples: int = 4000,
    few: int = FEW,
) -> Rates:
    """0/1 values with the prompt and task of each. With `kind` "bootstrap" prompts are resampled within tasks.

    A task still gets Wilson's interval if it has fewer than `few` prompts or if resamples have no spread (all right,
    all wrong, all prompts equal). If one task does, the overall interval is combined from those of the tasks.
    """
    tasks: dict[str, Rate] = {}
    for number, tag in enumerate(in_order(tags)):
        rows = [i for i, other in enumerate(tags) if other == tag]
        ours, clusters = [values[i] for i in rows], [prompts[i] for i in rows]
        tasks[tag] = Rate(clustered_wilson(ours, clusters), "wilson")
        if kind == "bootstrap" and len(set(clusters)) >= few:
            drawn = cluster_bootstrap(ours, clusters, seed + number, num_resamples=num_resamples)
            tasks[tag] = Rate(drawn, "bootstrap") if drawn.low < drawn.high else tasks[tag]
    if all(task.method == "bootstrap" for task in tasks.values()):
        overall = cluster_bootstrap(values, prompts, seed, tags=tags, num_resamples=num_resamples)
        return Rates(tasks, Rate(overall, "bootstrap"))
    return Rates(tasks, Rate(mean_of([task.interval for task in tasks.values()]), "combined"))


def legend(methods: Iterable[Method]) -> str:
    """The line below a table: how its intervals were found, and what the marks behind them mean."""
    found = set(methods)
    return "95 % intervals: " + "; ".join(text for method, text in _LEGEND.items() if method in found)


def in_order(tags: Sequence[str]) -> list[str]:
    """The tasks that occur: those of GenEval in its order, then the others by name."""
    present = set(tags)
    return [tag for tag in TAGS if tag in present] + sorted(present.difference(TAGS))
