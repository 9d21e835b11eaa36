"""What all ZeRO stages have in common: the passes of a step, and the same checkpoint files as without sharding.

Collective calls must be the same on all ranks, in one order. So all ranks do equal numbers of passes (ranks without
rows run dummy passes of zero weight), and a loss gives zeros as gradient to whole parameters that it does not use.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from genloop.distributed import World
from genloop.training.ema import Ema
from genloop.training.optimizer import LR_SCALE, build_optimizer
from genloop.training.passes import LossModule
from genloop.training.precision import Precision
from genloop.training.reductions import add_over_ranks
from genloop.training.settings import LoopSettings
from genloop.training.state import (
    MOMENTS,
    Progress,
    load_averages,
    load_moments,
    load_weights,
    newest_checkpoint,
    trained_tensors,
    write_state,
)
from genloop.training.task import B, MicroBatch, Objective, Outcome, Step


class Sharded(ABC, Generic[B]):
    """`train.zero_stage` 1, 2 or 3 on several ranks."""

    equal_passes = True
    optimizer: torch.optim.AdamW

    def __init__(self, objective: Objective[Any, B], settings: LoopSettings, run: Path, world: World) -> None:
        self.model, self.settings, self.run, self.world = objective.model, settings, run, world
        newest = newest_checkpoint(run, world)
        self.progress = Progress() if newest is None else load_weights(newest, self.model)
        device = next(self.model.parameters()).device
        self.precision = Precision(settings.precision, device, caches=settings.zero_stage < 3)
        self.precision.load(self.progress.scaler)
        self.losses = _LossWithAllGradients(objective, self.precision)
        self.shard(lambda: build_optimizer(self.model, settings, objective.lr_scale_of))
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.ema = Ema(self.trained, settings.ema) if settings.ema else None
        if newest is not None:
            self._load(newest)

    @abstractmethod
    def shard(self, build: Callable[[], torch.optim.AdamW]) -> None:
        """Shard the model, and set `optimizer` to what `build` makes of its parameters."""

    @abstractmethod
    def backward(self, micro: MicroBatch[B] | None, factor: float, *, is_last: bool) -> None:
        """Add the gradient of a micro-batch's loss times `factor`, averaged over the ranks."""

    @abstractmethod
    def update(self) -> float:
        """Undo scale and average, clip, take a step, clear the gradient -> its norm; no step where it is not finite."""

    @abstractmethod
    def moment(self, parameter: nn.Parameter, name: str) -> Tensor | None:
        """One of MOMENTS of a parameter that has been trained, whole or a DTensor; called on all ranks."""

    @abstractmethod
    def set_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        """Set one of MOMENTS from its whole value on the CPU; called on all ranks."""

    @abstractmethod
    def whole(self) -> AbstractContextManager[object]:
        """While the body runs every rank holds the whole model and may call it alone."""

    @abstractmethod
    def free(self) -> None:
        """Make the model a plain whole module for good, and free all else."""

    def add_up(self, step: Step[B]) -> None:
        """The gradients of all passes of all ranks."""
        self.losses.begin()
        for micro in step.micro_batches:
            factor = self.precision.scale / step.weight if micro.is_counted else 0.0
            self.backward(micro, factor, is_last=micro.is_last)
            self.losses.count(micro)

    def discard(self) -> None:
        """What a pass that failed has left."""
        self.losses.begin()

    def step(self, step: Step[B]) -> Outcome:
        """Clip what was added up, and take one step of AdamW."""
        stop = add_over_ranks(self.losses.sums, self.world)
        for group in self.optimizer.param_groups:
            group["lr"] = step.lr * group[LR_SCALE]
        norm = self.update()
        if math.isfinite(norm) and self.ema is not None:
            self.ema.update()
        self.precision.update(norm)
        return Outcome(norm, self.losses.sums, stop)

    def save(self) -> None:
        """Write the checkpoint of the steps done so far: all ranks gather tensor by tensor, rank 0 keeps them."""
        self.progress.scaler = self.precision.state
        weights = self._on_rank_0(trained_tensors(self.model).items())
        moments = self._on_rank_0(self._moments())
        averages = self._on_rank_0(self.ema.averages.items() if self.ema else ())
        if self.world.rank == 0:
            write_state(self.run, weights, moments, self.progress, keep=self.settings.keep, averages=averages)

    @contextmanager
    def gathered(self, *, averages: bool | None = None) -> Iterator[None]:
        """While the body runs every rank holds the whole model, or its averages, and may call it alone."""
        wanted = self.settings.use_ema if averages is None else averages
        with self.ema.swapped() if self.ema and wanted else nullcontext(), self.whole():
            yield

    def close(self) -> None:
        """Training is over: the model is a plain whole module on every rank, of averages with `use_ema`."""
        if self.ema and self.settings.use_ema:
            self.ema.swap()
        self.ema = None
        self.free()
        self.trained.clear()
        self.optimizer.state.clear()
        self.optimizer.param_groups.clear()

    def _load(self, folder: Path) -> None:
        for name, moment, value in load_moments(folder, self.trained, MOMENTS):
            self.set_moment(self.trained[name], moment, value)
        if self.ema:
            for name, value in load_averages(folder, self.ema.averages):
                self.ema.averages[name].copy_(sharded_like(self.trained[name], value))

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.trained.items():
            for moment in MOMENTS:
                value = self.moment(parameter, moment)
                if value is not None:
                    yield f"{name}/{moment}", value

    def _on_rank_0(self, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """Whole tensors on the CPU of rank 0; nothing on the others."""
        kept = {}
        for name, value in tensors:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if self.world.rank == 0:
                kept[name] = whole.cpu()
        return kept


def sharded_like(parameter: nn.Parameter, whole: Tensor) -> Tensor:
    """This rank's part of a whole tensor, on the device of a parameter and in shards as it is."""
    whole = whole.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


class _LossWithAllGradients(LossModule):
    """Every whole parameter gets a gradient: the losses of other ranks may use it where this rank's does not."""

    def forward(self, micro: MicroBatch[Any] | None) -> Tensor:
        """The sum of the loss over a micro-batch; 0 for None."""
        whole = [p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        if micro is not None and not whole:  # all that is trained is in layers, which are gathered one by one
            return super().forward(micro)
        zero = torch.stack([p.flatten()[:0].sum() for p in whole]).sum()
        return zero if micro is None else zero + super().forward(micro)
