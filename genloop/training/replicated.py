"""Training with the whole model, its gradients and moments on every rank: gradients are summed, all take one step."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Generic

import torch
import torch.distributed as dist
from torch import Tensor, nn

from genloop.distributed import World
from genloop.training.optimizer import SHARE, build_optimizer
from genloop.training.reductions import add_over_ranks
from genloop.training.state import Progress, load_state, save_state
from genloop.training.task import B, Task

_BUCKET = 1 << 24  # gradient values summed over the ranks in one call


class Replicated(Generic[B]):
    """The plain way: `train.zero_stage=0`, or one process."""

    def __init__(self, task: Task[B], run: Path, world: World) -> None:
        self.task, self.world = task, world
        self.optimizer = build_optimizer(task.model, task.settings, task.share_of)
        self.progress = load_state(run, task.model, self.optimizer)

    def step(self, step: int, rate: float) -> tuple[bool, float, dict[str, float]]:
        """One step of all ranks -> whether any rank was asked to stop, norm of the gradient, sums for the metrics."""
        settings, model = self.task.settings, self.task.model
        batch = self.task.batch_of(step)
        rows = range(settings.batch_size)[self.world.rank :: self.world.world_size]
        self.optimizer.zero_grad(set_to_none=False)
        sums: dict[str, float] = {"weight": 0.0, "loss": 0.0}
        for start in range(0, len(rows), settings.rows_per_forward):
            loss = self.task.loss_of(batch, rows[start : start + settings.rows_per_forward])
            loss.total.backward()
            for name, value in {"weight": loss.weight, "loss": loss.total.item(), **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + value
        stop = add_over_ranks(sums, self.world)
        parameters = [p for p in model.parameters() if p.requires_grad]
        _sum_gradients(parameters, self.world)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(sums["weight"])
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip, error_if_nonfinite=True)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group[SHARE]
        self.optimizer.step()
        return stop, float(norm), sums

    def save(self, run: Path, progress: Progress) -> None:
        """Write the checkpoint of this step."""
        if self.world.rank == 0:
            save_state(run, self.task.model, self.optimizer, progress, keep=self.task.settings.keep)

    def whole(self) -> AbstractContextManager[object]:
        """While the body runs the model can be asked by every rank for itself."""
        return nullcontext()

    def close(self) -> None:
        """Training is over; the model stays."""


def _sum_gradients(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Replace every gradient by its sum over the ranks, in flat buckets."""
    if world.world_size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket])
        dist.all_reduce(flat)
        for grad, part in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
            grad.copy_(part.view_as(grad))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(grad.numel() for grad in bucket) >= _BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
