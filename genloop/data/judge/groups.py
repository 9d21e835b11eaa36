"""Rows of a table in groups, as two arrays: what belongs together, however many rows there are."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np


class Groups(Sequence[Any]):
    """Groups in the order of their first rows; `groups[i]` is `view` of the rows of one, in their order."""

    def __init__(self, rows: np.ndarray, labels: np.ndarray, view: Callable[[list[int]], Any] = list) -> None:
        """rows (R,) ascending, labels (R,): equal ones are one group."""
        order = by_first(labels)
        self._rows = rows[np.argsort(order, kind="stable")]
        self._ends = np.cumsum(np.bincount(order)) if len(rows) else np.empty(0, np.int64)
        self._view = view

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, group: int) -> Any: ...
    @overload
    def __getitem__(self, group: slice) -> list[Any]: ...
    def __getitem__(self, group: int | slice) -> Any:
        if isinstance(group, slice):
            return [self[i] for i in range(len(self))[group]]
        group = range(len(self))[group]  # IndexError when there is no such group
        start = self._ends[group - 1] if group else 0
        return self._view(self._rows[start : self._ends[group]].tolist())


def by_first(labels: np.ndarray) -> np.ndarray:
    """(R,) -> (R,) numbers of the distinct labels, counted in the order in which they come up."""
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    return rank[inverse]
