"""Accuracy by task and overall, with the error bars that a reader asks for: Wilson's, or a bootstrap over prompts.

Measured on simulated evaluations with several images a prompt (benchmarks/geneval_intervals.md): a task's bootstrap
covers as little as 84 % with 5 prompts and 91 % with 20, Wilson's interval at the effective sample size 93 to 100 %;
with 50 prompts and more both cover about 95 %. Hence Wilson's is the default, of tables too.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from genloop.metrics.statistics import Interval, cluster_bootstrap, clustered_wilson, mean_of
from genloop.records import TAGS

Kind = Literal["wilson", "bootstrap"]


@dataclass(frozen=True, slots=True)
class Rates:
    """Each task in GenEval's order, unknown ones last, and the unweighted mean of the tasks."""

    tasks: Mapping[str, Interval]
    overall: Interval


def rates(
    values: Sequence[float],
    prompts: Sequence[Hashable],
    tags: Sequence[str],
    *,
    kind: Kind = "wilson",
    seed: int = 0,
    num_resamples: int = 4000,
) -> Rates:
    """0/1 values, each with its prompt and its task. With `kind` "bootstrap" prompts are drawn again within tasks.

    The bootstrap knows nothing of a task whose prompts are all right or all wrong: such a task has Wilson's interval.
    """
    by_tag = {tag: [i for i, other in enumerate(tags) if other == tag] for tag in in_order(tags)}
    tasks = {}
    for number, (tag, rows) in enumerate(by_tag.items()):
        ours, clusters = [values[i] for i in rows], [prompts[i] for i in rows]
        if kind == "wilson" or len(set(ours)) == 1:
            tasks[tag] = clustered_wilson(ours, clusters)
        else:
            tasks[tag] = cluster_bootstrap(ours, clusters, seed + number, num_resamples=num_resamples)
    if kind == "wilson":
        return Rates(tasks, mean_of(list(tasks.values())))
    overall = cluster_bootstrap(values, prompts, seed, tags=tags, num_resamples=num_resamples)
    return Rates(tasks, overall if overall.low < overall.high else mean_of(list(tasks.values())))


def in_order(tags: Sequence[str]) -> list[str]:
    """The tasks that occur: those of GenEval in its order, then the others by name."""
    present = set(tags)
    return [tag for tag in TAGS if tag in present] + sorted(present.difference(TAGS))
