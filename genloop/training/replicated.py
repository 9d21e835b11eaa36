"""Training with the whole model, its gradients and moments on every rank; DDP sums gradients while backward runs."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Generic

import torch
from torch.nn.parallel import DistributedDataParallel

from genloop.distributed import World
from genloop.training.ema import Ema
from genloop.training.optimizer import LR_SCALE, build_optimizer
from genloop.training.passes import LossModule
from genloop.training.precision import Precision
from genloop.training.reductions import add_over_ranks
from genloop.training.settings import LoopSettings
from genloop.training.state import load_state, save_state
from genloop.training.task import B, Objective, Outcome, Step


class Replicated(Generic[B]):
    """The plain way: `train.zero_stage=0`, or one process."""

    equal_passes = False

    def __init__(self, objective: Objective[Any, B], settings: LoopSettings, run: Path, world: World) -> None:
        self.model, self.settings, self.run, self.world = objective.model, settings, run, world
        self.optimizer = build_optimizer(self.model, settings, objective.lr_scale_of)
        self.trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.ema = Ema(self.trained, settings.ema) if settings.ema else None
        self.progress = load_state(run, self.model, self.optimizer, self.ema, world)
        self.precision = Precision(settings.precision, next(self.model.parameters()).device)
        self.precision.load(self.progress.scaler)
        self._losses = LossModule(objective, self.precision)
        self._ddp = _ddp(self._losses) if world.world_size > 1 else None
        for parameter in self.optimizer.state:  # used before: no step leaves it out from then on
            parameter.grad = torch.zeros_like(parameter)

    def add_up(self, step: Step[B]) -> None:
        """The gradients of all passes of all ranks, from nothing."""
        self.optimizer.zero_grad(set_to_none=False)
        self._losses.begin()
        factor = self.precision.factor(step.weight)
        for micro in step.micro_batches:
            # ranks may do different numbers of passes: only the last one is synchronised
            with nullcontext() if self._ddp is None or micro.is_last else self._ddp.no_sync():
                total = (self._ddp or self._losses)(micro)
                (total * factor).backward()
            self._losses.count(micro)

    def discard(self) -> None:
        """What a pass that failed has left."""
        self._losses.begin()

    def step(self, step: Step[B]) -> Outcome:
        """Clip what was added up, and take one step of AdamW."""
        stop = add_over_ranks(self._losses.sums, self.world)
        factor = self.precision.factor(step.weight)
        norm = self._clipped(step.weight * factor / self.world.world_size)  # DDP gives means over the ranks
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = step.lr * group[LR_SCALE]
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
        self.precision.update(norm)
        return Outcome(norm, self._losses.sums, stop)

    def save(self) -> None:
        """Write the checkpoint of the steps done so far."""
        self.progress.scaler = self.precision.state
        if self.world.rank == 0:
            save_state(self.run, self.model, self.optimizer, self.ema, self.progress, keep=self.settings.keep)

    def gathered(self, *, averages: bool | None = None) -> AbstractContextManager[object]:
        """The model is whole on every rank at all times; averages stand in for its weights where they are wanted."""
        wanted = self.settings.use_ema if averages is None else averages
        return self.ema.swapped() if self.ema is not None and wanted else nullcontext()

    def close(self) -> None:
        """The model stays as it is, or gets its averages."""
        if self.ema is not None and self.settings.use_ema:
            self.ema.swap()

    def _clipped(self, divisor: float) -> float:
        """Divide and clip the gradients -> their norm before clipping; not finite when one of them is not."""
        for parameter in self.trained.values():
            if parameter.grad is not None:
                parameter.grad.div_(divisor)
        return float(torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.grad_clip))


def _ddp(losses: LossModule) -> DistributedDataParallel:
    """All ranks start from equal weights; what no rank has used yet has no gradient."""
    return DistributedDataParallel(
        losses, broadcast_buffers=False, init_sync=False, find_unused_parameters=True, gradient_as_bucket_view=True
    )
