"""A process that computes as fast as it may: for tests of what must not depend on that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

HASTY = ("tf32", "tf32", "bf16", "bf16", True)
STRICT = ("ieee", "ieee", "ieee", "ieee", False)


def places() -> list[tuple[Any, str]]:
    """Where a process says how exactly it computes."""
    cuda, cudnn, cpu = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    kinds: list[Any] = [cuda.matmul, cudnn.conv, cpu.matmul, cpu.conv]
    return [*((kind, "fp32_precision") for kind in kinds), (cudnn, "benchmark")]


def exactness() -> tuple[Any, ...]:
    """What it says there now."""
    return tuple(getattr(place, name) for place, name in places())


@contextmanager
def hasty_process() -> Iterator[None]:
    """HASTY for a while."""
    before = exactness()
    for (place, name), value in zip(places(), HASTY):
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name), value in zip(places(), before):
            setattr(place, name, value)
