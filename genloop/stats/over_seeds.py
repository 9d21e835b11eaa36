"""Paired differences of two trainings that were done with several seeds: intervals over prompts and seeds together.

Both prompts and training seeds are drawn with replacement (a two-way bootstrap, Owen 2007). With few seeds intervals
are too narrow: resampling S seeds gives (S - 1) / S of their variance. With one seed they are over prompts alone.
S = seeds, V = images, C = prompts.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from genloop.stats.clusters import numbered
from genloop.stats.intervals import Interval
from genloop.stats.resampling import bootstrap


def over_prompts_and_seeds(
    differences: Sequence[Sequence[float]],
    clusters: Sequence[Hashable],
    tags: Sequence[Hashable],
    seed: int,
    *,
    num_resamples: int = 4000,
) -> Interval:
    """The mean of `differences` (S, V) with its 95 % interval: the unweighted mean of the tasks, seeds alike.

    `clusters` (V,) are the prompts of the images, `tags` (V,) their tasks; ValueError where lengths differ.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2 or not values.size or not values.shape[1] == len(clusters) == len(tags):
        raise ValueError(
            f"needs a difference for every seed and image, found {values.shape} for {len(clusters)} images"
        )
    prompts, keys = numbered(list(zip(tags, clusters)))
    strata, tasks = numbered([tag for tag, _ in keys])
    sums = np.stack([np.bincount(prompts, weights=row) for row in values])  # (S, C)
    counts = np.bincount(prompts).astype(np.float64)
    num_seeds, num_prompts = sums.shape
    groups = [strata == task for task in range(len(tasks))]

    def mean(weights: np.ndarray) -> np.ndarray:
        of_prompts, of_seeds = weights[:, :num_prompts], weights[:, num_prompts:]
        shares = of_seeds / of_seeds.sum(axis=1, keepdims=True)  # (R, S)
        parts = [((of_prompts[:, g] @ sums[:, g].T) * shares).sum(1) / (of_prompts[:, g] @ counts[g]) for g in groups]
        return np.mean(parts, axis=0)

    all_strata = np.concatenate([strata, np.full(num_seeds, len(tasks))])
    return bootstrap(mean, all_strata, seed, num_resamples=num_resamples)[0]
