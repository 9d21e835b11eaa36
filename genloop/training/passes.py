"""One forward pass of the model and its loss, as every learner does it: in the run's precision, with keyed dropout."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genloop.rundir import BadInput
from genloop.training.precision import Precision
from genloop.training.task import Loss, MicroBatch, Objective


class LossModule(nn.Module):
    """Model and loss as one module, for libraries that wrap a forward pass; `sums` add up what a step came to."""

    def __init__(self, objective: Objective[Any, Any], precision: Precision) -> None:
        super().__init__()
        self.model, self.precision = objective.model, precision
        self._loss = objective.loss
        self._found: Loss | None = None
        self.sums: dict[str, float] = {}

    def begin(self) -> None:
        """A new step."""
        self._found = None
        self.sums = {"weight": 0.0, "loss": 0.0}

    def forward(self, micro: MicroBatch[Any]) -> Tensor:
        """The sum of the loss over a micro-batch."""
        with self.precision.autocast(), keyed_dropout(micro.seed, next(self.model.parameters()).device):
            self._found = self._loss(micro.batch)
        return self._found.total

    def count(self, micro: MicroBatch[Any]) -> None:
        """Add the loss just computed to the sums, unless the pass does not count."""
        assert self._found is not None
        loss, self._found = self._found, None
        if micro.is_counted:
            for name, value in {"weight": loss.weight, "loss": loss.total.item(), **loss.parts}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value


def pass_seed(seed: int, step: int, rank: int, number: int) -> int:
    """The seed of what is random in a pass: a function of the run's seed, step, rank and micro-batch."""
    return int(np.random.default_rng([seed, 2, step, rank, number]).integers(1 << 62))


@contextmanager
def keyed_dropout(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a generator seeded by `seed`; the global ones are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def checkpoint_activations(model: nn.Module) -> None:
    """Compute activations again in the backward pass; BadInput when the model has no layers that can."""
    able = [module for module in model.modules() if hasattr(module, "gradient_checkpointing_enable")]
    if not able:
        raise BadInput(f"train.gradient_checkpointing: not known to a {type(model).__name__}; set it to false")
    outermost: Any = able[0]
    enable = getattr(outermost, "activation_checkpointing_enable", outermost.gradient_checkpointing_enable)
    enable({"use_reentrant": False})  # the first name since transformers 5.23
