"""Values grouped by cluster: images of one prompt are not independent, so every interval counts prompts, not images."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

Name = TypeVar("Name", bound=Hashable)


def by_cluster(
    values: Sequence[float], clusters: Sequence[Hashable], tags: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> sums (C,), counts (C,), index of the tag (C,); a cluster of two tags counts as two clusters."""
    tags = [None] * len(values) if tags is None else tags
    if not len(values) or not len(values) == len(clusters) == len(tags):
        raise ValueError(
            "values, clusters and tags must be equally many and not empty, "
            f"found {len(values)}, {len(clusters)}, {len(tags)}"
        )
    index, keys = numbered(list(zip(tags, clusters)))
    strata, _ = numbered([tag for tag, _ in keys])
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    return sums, np.bincount(index).astype(np.float64), strata


def numbered(names: Sequence[Name]) -> tuple[np.ndarray, list[Name]]:
    """Names (n,) -> the number of each in order of first appearance (n,), the distinct names in that order."""
    numbers: dict[Name, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names]), list(numbers)
