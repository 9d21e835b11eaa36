"""When memory runs out: how that is recognised, and how work goes on in smaller batches."""

import gc
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Budget:
    """The size of one forward pass. It is halved whenever memory runs out, and stays halved."""

    limit: int
    key: str  # the config key that set it, for the log
    forget: Callable[[], object] = gc.collect  # gives up what is only kept to save work

    def run(
        self, items: Sequence[T], size: int | Callable[[T], int], compute: Callable[[Sequence[T]], Iterable[R]]
    ) -> list[R]:
        """`compute` of the items, of one size or of their own, in batches that fit, at least one item each."""
        done: list[R] = []
        while len(done) < len(items):
            batch, total = self._batch(items[len(done) :], size)
            self.attempt(total, partial(_extend, done, compute, batch), can_shrink=len(batch) > 1)
        return done

    def attempt(self, size: int, work: Callable[[], object], *, can_shrink: bool) -> bool:
        """Do work of a size -> True; False when memory ran out, after which there is less work to be tried.

        Work that cannot shrink fails with a note that names the key.
        """
        try:
            work()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not can_shrink:
                error.add_note(
                    f"{self.key}: {size} does not fit into memory; use less, another dtype or another device"
                )
                raise
        self.forget()
        release_memory()  # outside of the handler, whose traceback refers to the tensors that did not fit
        self.limit = max(1, min(size, self.limit) // 2)
        log.warning("out of memory with %s=%d; going on with %d", self.key, size, self.limit)
        return False

    def _batch(self, items: Sequence[T], size: int | Callable[[T], int]) -> tuple[Sequence[T], int]:
        """As many of the first items as the limit allows, and their size."""
        if isinstance(size, int):
            batch = items[: max(1, self.limit // size)]
            return batch, len(batch) * size
        total = 0
        for count, item in enumerate(items):
            if count and total + size(item) > self.limit:
                return items[:count], total
            total += size(item)
        return items, total


def _extend(done: list[R], compute: Callable[[Sequence[T]], Iterable[R]], batch: Sequence[T]) -> None:
    done += list(compute(batch))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up, on the GPU or on the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Free what nobody uses: reference cycles first, then the blocks that the GPU's allocator holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
