"""When memory runs out: how that is recognised, and how work goes on in smaller batches."""

import gc
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Budget:
    """The size of one forward pass. It is halved whenever memory runs out, and stays halved."""

    limit: int
    key: str  # the config key that set it, for the log

    def run(self, items: Sequence[T], size: int, compute: Callable[[Sequence[T]], Iterable[R]]) -> list[R]:
        """`compute` of the items, all of one size, in batches of as many as fit, at least one item each."""
        done: list[R] = []
        while len(done) < len(items):
            batch = items[len(done) :][: max(1, self.limit // size)]
            try:
                done += compute(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    error.add_note(f"not even one image fits into memory ({self.key}: {size}); use another device")
                    raise
            release_memory()  # outside of the handler, whose traceback refers to the tensors that did not fit
            self.limit = len(batch) * size // 2
            log.warning("out of memory with %s=%d; going on with %d", self.key, len(batch) * size, self.limit)
        return done


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up, on the GPU or on the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Free what nobody uses: reference cycles first, then the blocks that the GPU's allocator holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
