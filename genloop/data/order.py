"""Which sample of a sharded set comes at which training step: shuffled by blocks of shards, a function of the step.

In each epoch the shards are permuted and cut into blocks of about `block` samples, and the samples of a block are
shuffled. Samples drawn close to each other thus come from few shards, and no more than two blocks are held in memory,
however large the set. A set of less than two blocks is one block: one shuffle of all its samples.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 1 << 16


class Order:
    """The order of a set of shards with `sizes` samples each, epoch after epoch, keyed by (seed, epoch, block)."""

    def __init__(self, sizes: Sequence[int], seed: int, *, block: int = BLOCK) -> None:
        self.seed = seed
        self._sizes = np.array(sizes, dtype=np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes  # the first sample of each shard
        self.num_samples = int(self._sizes.sum())
        if self.num_samples == 0:
            raise ValueError("a set without samples has no order")
        self._num_blocks, self._block = max(1, self.num_samples // block), block
        self._epoch, self._shards, self._ends = -1, np.empty(0, np.int64), np.empty(0, np.int64)
        self._start, self._shuffled = 0, np.empty(0, np.int64)  # the place in the epoch and samples of the held block

    def rows(self, step: int, batch_size: int) -> list[int]:
        """The samples of step 1, 2, ...; a batch may span blocks and epochs."""
        first, found = (step - 1) * batch_size, np.empty(0, np.int64)
        while missing := batch_size - len(found):
            place = self._hold(*divmod(first + len(found), self.num_samples))
            found = np.concatenate([found, self._shuffled[place : place + missing]])
        return found.tolist()

    def _hold(self, epoch: int, place: int) -> int:
        """Shuffle the block that holds a place of an epoch, unless it is held already -> the place in that block."""
        same_epoch = epoch == self._epoch
        if not same_epoch:
            self._permute_shards(epoch)
        if not same_epoch or not 0 <= place - self._start < len(self._shuffled):
            number = int(np.searchsorted(self._ends, place, side="right"))
            self._start = int(self._ends[number - 1]) if number else 0
            self._shuffled = self._shuffle(number)
        return place - self._start

    def _permute_shards(self, epoch: int) -> None:
        self._epoch, self._shards = epoch, np.arange(len(self._sizes))
        if self._num_blocks > 1:
            self._shards = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._sizes))
        sizes = self._sizes[self._shards]
        ends = np.cumsum(sizes)
        block_of = np.minimum((ends - sizes) // self._block, self._num_blocks - 1)  # by the place of a first sample
        self._ends = ends[np.append(block_of[1:] != block_of[:-1], True)]

    def _shuffle(self, number: int) -> np.ndarray:
        """The samples of one block of the epoch."""
        starts = np.cumsum(self._sizes[self._shards]) - self._sizes[self._shards]
        shards = self._shards[(starts >= self._start) & (starts < self._ends[number])]
        samples = np.concatenate([np.arange(f, f + n) for f, n in zip(self._firsts[shards], self._sizes[shards])])
        key = [self.seed, 0, self._epoch] + ([number] if self._num_blocks > 1 else [])
        return np.random.default_rng(key).permutation(samples)
