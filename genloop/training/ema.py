"""Exponential moving averages of the trained weights: after each step a = decay * a + (1 - decay) * w, in float32."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """Averages of named tensors, which may be parts of sharded ones."""

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._weights = {name: weight.detach() for name, weight in weights.items()}
        self.averages = {name: weight.clone() for name, weight in self._weights.items()}
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Take in the weights as they are now."""
        self._average(list(self.averages.values()), list(self._weights.values()), 0)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While the body runs the model has the averages as its weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages, in place."""
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)
