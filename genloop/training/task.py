"""The contract of a training: an objective plans steps, loads items and computes losses; the loop does all else.

    plan(step)          what the batch of a step consists of; cheap, the same on all ranks
    load(items, plan)   some items, read and decoded into CPU tensors; runs ahead in worker processes, without the model
    loss(batch)         their loss, on the device of the model
    prepare(step)       rollouts: every so many steps, and before the first step of a resumed run
    before_training(step)  before the first step: a self-test, what is compared with later
    after_step(step)    evaluation, images: the model is whole on every rank meanwhile

A rank loads `plan.items[rank::world_size]` only, in micro-batches of `train.rows_per_forward` items.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

I = TypeVar("I")  # noqa: E741 - an item
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Plan(Generic[I]):
    """The batch of one step over all ranks: small picklable items, and what the sum of their losses is divided by."""

    items: Sequence[I]
    weight: float
    shared: Any = None  # small and picklable: what the loss of an item needs to know of the whole batch


@dataclass(frozen=True, slots=True)
class Loss:
    """Sum of a loss over some items, and their share of the plan's weight: a number of tokens, pairs, images, ..."""

    total: Tensor  # scalar, with a gradient
    weight: float
    parts: dict[str, float] = field(default_factory=dict)  # further sums for metrics.jsonl, divided by the same weight


class Gathered(Protocol):
    """Opens the model as a whole on every rank; called on all ranks alike."""

    def __call__(self, *, averages: bool | None = None) -> AbstractContextManager[object]:
        """The weights as trained, or their moving averages (where there are some); None: as `train.use_ema` says."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What whoever watches a training wants of the loop; the same on all ranks."""

    keep: bool = False  # save a checkpoint now, as the best so far
    stop: bool = False  # save one and end here


class Watch(Protocol):
    """Looks over a training (genloop.training.guards): the loop calls it on all ranks unless it says otherwise."""

    every: int  # steps between two calls of after_step; 0: none
    is_stopped: bool  # whether the training has ended early, now or in an earlier start

    def begin(self, step: int) -> Mapping[str, Any]:
        """Before the first step of this process, `step` done, the model whole -> a line of metrics for step 0."""

    def watch(self, line: Mapping[str, Any]) -> None:
        """Every new line of metrics.jsonl; on rank 0."""

    def after_step(self, step: int) -> Mapping[str, Any]:
        """A look at the whole model -> more for the line of this step."""

    def decision(self) -> Decision:
        """What follows from all that was seen since the last decision."""

    def saved(self, step: int, decision: Decision) -> None:
        """A checkpoint of this step is complete; on rank 0."""

    def conclude(self, model: nn.Module, *, use_averages: bool) -> None:
        """The training is over and the model plain: it may get other weights; RunFailed when it was stopped so."""


class Objective(ABC, Generic[I, B]):
    """What is trained, on what, by which loss. Subclasses may set the two periods and override the optional methods."""

    model: nn.Module
    guard: Watch | None = None
    prepare_every: int = 0  # steps between two calls of prepare; 0: it is never called
    after_every: int = 0  # steps between two calls of after_step; 0: it is never called
    evaluate: Callable[[int], Mapping[str, Any] | None] = staticmethod(lambda step: None)  # what after_step asks
    lr_scale_of: Callable[[str], float] = staticmethod(lambda name: 1.0)  # a parameter -> the factor on its rate

    @abstractmethod
    def plan(self, step: int) -> Plan[I]:
        """The batch of step 1, 2, ...: a function of the config and the step alone."""

    @abstractmethod
    def load(self, items: Sequence[I], plan: Plan[I]) -> B:
        """Read some items of a plan into CPU tensors; `plan` comes without its items, to travel lightly.

        The result is a tensor, a dataclass, a mapping or a sequence; tensors in it move to the device of the model.
        """

    @abstractmethod
    def loss(self, batch: B) -> Loss:
        """The loss of what `load` gave, its tensors on the device of the model. Reads no file."""

    def prepare(self, step: int, gathered: Gathered) -> Mapping[str, Any] | None:
        """Called on all ranks before step 1, every `prepare_every` steps from there, and before the first step of a
        resumed run -> a line of metrics.jsonl, or nothing. Plans may be made and items loaded earlier.
        """
        return None

    def before_training(self, step: int) -> Mapping[str, Any] | None:
        """Called on all ranks before the first step of a process, `step` done -> a line of metrics.jsonl for step 0.

        What it returns after other steps is dropped: the line is there.
        """
        return None

    def after_step(self, step: int) -> Mapping[str, Any] | None:
        """Called on all ranks every `after_every` steps -> a line of metrics.jsonl, or nothing."""
        return self.evaluate(step)


@dataclass(frozen=True, slots=True)
class MicroBatch(Generic[B]):
    """What a rank computes in one forward and backward pass."""

    batch: B  # on the device
    seed: int  # of what is random in the pass
    is_last: bool  # of this rank in this step
    is_counted: bool = True  # False: a pass that only keeps this rank in step with the others, of weight 0


@dataclass(frozen=True, slots=True)
class Step(Generic[B]):
    """One optimiser step as a learner gets it."""

    number: int
    lr: float
    weight: float  # of the batch over all ranks
    num_items: int  # over all ranks
    micro_batches: Iterator[MicroBatch[B]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to, the same on all ranks."""

    grad_norm: float  # not finite: the step was skipped
    sums: dict[str, float]  # for the metrics, over all ranks
    stop: bool  # whether any rank was asked to stop
