"""What a job hands to the train loop: the model, the batch of a step, the loss of some of its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from genloop.training.settings import TrainSettings

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Loss:
    """Sum of a loss over some items, and the weight to divide it by: the number of tokens, pairs, images, ..."""

    total: Tensor  # scalar, with a gradient
    weight: float
    parts: dict[str, float] = field(default_factory=dict)  # further sums for metrics.jsonl, divided by the same weight


@dataclass(frozen=True, slots=True)
class Task(Generic[B]):
    """What is trained: the model, the batch of a step, and the loss of some of its rows."""

    model: nn.Module
    batch_of: Callable[[int], B]  # step (from 1) -> the batch of all ranks
    loss_of: Callable[[B, Sequence[int]], Loss]  # batch, row numbers -> their loss
    settings: TrainSettings
    share_of: Callable[[str], float] | None = None  # a parameter's name -> its share of the learning rate
    after_step: Callable[[int], Mapping[str, Any] | None] | None = None  # on all ranks; what it gives is a metrics line
    after_every: int = 1  # steps between two calls of after_step
    weight_of: Callable[[B], float] | None = None  # batch -> the weight of all its rows; train.zero_stage needs it
