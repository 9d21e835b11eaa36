"""Strict float32, whatever the process has set: for numbers that are held against thresholds and recordings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from genloop.models.common.footprint import kind_of


@contextmanager
def strict_float32(device: str | torch.device) -> Iterator[None]:
    """No TF32 or bfloat16 in place of float32 on GPU or CPU, no autocast, no algorithm chosen by a race.

    What the process has set is set again afterwards.
    """
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    places: tuple[tuple[Any, str, Any], ...] = (
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (cudnn.conv, "fp32_precision", "ieee"),
        (mkldnn.matmul, "fp32_precision", "ieee"),
        (mkldnn.conv, "fp32_precision", "ieee"),
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
    )
    before = [getattr(place, name) for place, name, _ in places]
    try:
        for place, name, value in places:
            setattr(place, name, value)
        with torch.autocast(kind_of(torch.device(device)), enabled=False):
            yield
    finally:
        for (place, name, _), value in zip(places, before):
            setattr(place, name, value)
