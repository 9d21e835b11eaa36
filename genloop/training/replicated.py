"""Training with the whole model, its gradients and moments on every rank; DDP sums gradients while backward runs."""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Generic

import torch
from torch.nn.parallel import DistributedDataParallel

from genloop.distributed import World
from genloop.training.optimizer import LR_SCALE, build_optimizer
from genloop.training.reductions import add_over_ranks
from genloop.training.settings import LoopSettings
from genloop.training.state import load_state, save_state
from genloop.training.task import B, LossModule, Objective, Outcome, Step


class Replicated(Generic[B]):
    """The plain way: `train.zero_stage=0`, or one process."""

    equal_passes = False

    def __init__(self, objective: Objective[Any, B], settings: LoopSettings, run: Path, world: World) -> None:
        self.model, self.settings, self.run, self.world = objective.model, settings, run, world
        self.optimizer = build_optimizer(self.model, settings, objective.lr_scale_of)
        self.progress = load_state(run, self.model, self.optimizer)
        self._losses = LossModule(objective)
        self._ddp = _ddp(self._losses) if world.world_size > 1 else None
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.optimizer.state:  # used before: no step leaves it out from then on
            parameter.grad = torch.zeros_like(parameter)

    def step(self, step: Step[B]) -> Outcome:
        """Add up the gradients of all passes of all ranks, clip them, and take one step of AdamW."""
        self.optimizer.zero_grad(set_to_none=False)
        sums: dict[str, float] = {"weight": 0.0, "loss": 0.0}
        for micro in step.micro_batches:
            # ranks may do different numbers of passes: only the last one is synchronised
            with nullcontext() if self._ddp is None or micro.is_last else self._ddp.no_sync():
                total = (self._ddp or self._losses)(micro.batch)
                total.backward()
            loss = self._losses.found
            assert loss is not None
            for name, value in {"weight": loss.weight, "loss": total.item(), **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + value
        stop = add_over_ranks(sums, self.world)
        assert math.isclose(sums["weight"], step.weight, rel_tol=1e-6), (sums["weight"], step.weight)
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.div_(step.weight / self.world.world_size)  # DDP gives means over the ranks
        norm = torch.nn.utils.clip_grad_norm_(self._trained, self.settings.grad_clip, error_if_nonfinite=True)
        for group in self.optimizer.param_groups:
            group["lr"] = step.lr * group[LR_SCALE]
        self.optimizer.step()
        return Outcome(float(norm), sums, stop)

    def save(self) -> None:
        """Write the checkpoint of the steps done so far."""
        if self.world.rank == 0:
            save_state(self.run, self.model, self.optimizer, self.progress, keep=self.settings.keep)

    def gathered(self) -> AbstractContextManager[object]:
        """The model is whole on every rank at all times."""
        return nullcontext()

    def close(self) -> None:
        """The model stays as it is."""


def _ddp(losses: LossModule) -> DistributedDataParallel:
    """All ranks start from equal weights; what no rank has used yet has no gradient."""
    return DistributedDataParallel(
        losses, broadcast_buffers=False, init_sync=False, find_unused_parameters=True, gradient_as_bucket_view=True
    )
