"""When memory runs out: how that is recognised, and what is given back before the next, smaller try."""

import torch

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up, on the GPU or on the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)


def release_memory() -> None:
    """Give back what the GPU's allocator holds but nobody uses."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
