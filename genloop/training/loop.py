"""The one train loop: batches and a loss come from the job; order, averaging over ranks, saving and resuming from here.

Nothing is random here. A job's `batch_of(step)` returns the whole batch of a step on every rank; each rank works on its
share of the rows, and gradients are sums divided by one weight over all ranks. So the loss of a step depends on the
config alone, up to the order of float additions: not on world size, restarts or micro-batches. On one process a resumed
run gives the very bits of an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from genloop.distributed import StopRequested, World
from genloop.job import note
from genloop.rundir import append_metrics
from genloop.training.optimizer import SHARE, build_optimizer, learning_rate
from genloop.training.settings import TrainSettings
from genloop.training.state import Progress, cut_metrics, load_state, save_state

B = TypeVar("B")
_BUCKET = 1 << 24  # gradient values summed over the ranks in one call


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


def train(task: Task[B], run: Path, world: World) -> None:
    """Train from the newest checkpoint in RUN/checkpoints (or from the model as it is) to `num_steps`.

    Saves every `save_every` steps, at the end, and when a stop is asked for: then raises StopRequested on all ranks.
    """
    settings = task.settings
    if world.world_size > settings.batch_size:
        raise ValueError(f"train.batch_size: {settings.batch_size} rows are too few for {world.world_size} ranks")
    optimizer = build_optimizer(task.model, settings, task.share_of)
    progress = load_state(run, task.model, optimizer)
    if world.rank == 0:
        cut_metrics(run, progress.step)
    task.model.train()
    clock, clocked = time.monotonic(), progress.step
    while progress.step < settings.num_steps:
        step = progress.step + 1
        rate = learning_rate(step, settings)
        with note(f"rank {world.rank}, step {step}"):
            stop, norm = _step(task, optimizer, progress, step, rate, world)
        is_last = step == settings.num_steps
        is_logged = is_last or step % settings.log_every == 0
        if is_logged and world.rank == 0:
            now = time.monotonic()
            speed = (step - clocked) / (now - clock)
            pace = {"steps_per_s": speed, "samples_per_s": settings.batch_size * speed}
            append_metrics(run, {"step": step, **progress.mean(), "lr": rate, "grad_norm": norm, **pace})
            clock, clocked = now, step
        if is_logged:
            progress.clear()
        found = task.after_step(step) if task.after_step else None
        if found and world.rank == 0:
            append_metrics(run, {"step": step, **found})
        if (stop or is_last or step % settings.save_every == 0) and world.rank == 0:
            save_state(run, task.model, optimizer, progress, keep=settings.keep)
        if stop:
            raise StopRequested


def _step(
    task: Task[B], optimizer: torch.optim.Optimizer, progress: Progress, step: int, rate: float, world: World
) -> tuple[bool, float]:
    """One optimiser step on all ranks -> (whether any rank was asked to stop, norm of the gradient)."""
    settings = task.settings
    batch = task.batch_of(step)
    rows = range(settings.batch_size)[world.rank :: world.world_size]
    optimizer.zero_grad(set_to_none=False)
    sums: dict[str, float] = {"weight": 0.0, "loss": 0.0}
    for start in range(0, len(rows), settings.rows_per_forward):
        loss = task.loss_of(batch, rows[start : start + settings.rows_per_forward])
        loss.total.backward()
        for name, value in {"weight": loss.weight, "loss": loss.total.item(), **loss.parts}.items():
            sums[name] = sums.get(name, 0.0) + value
    stop = _sum_over_ranks(sums, world)
    parameters = [p for p in task.model.parameters() if p.requires_grad]
    _sum_gradients(parameters, world)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(sums["weight"])
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip, error_if_nonfinite=True)
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SHARE]
    optimizer.step()
    progress.step = step
    progress.add(sums)
    return stop, float(norm)


def _sum_over_ranks(sums: dict[str, float], world: World) -> bool:
    """Add up `sums` in place -> whether any rank was asked to stop: all must stop at the same step."""
    if world.world_size == 1:
        return world.stop_requested()
    names = sorted(sums)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    numbers = [sums[name] for name in names] + [float(world.stop_requested())]
    values = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(values)
    *totals, stops = values.tolist()
    sums.update(zip(names, totals, strict=True))
    return stops > 0


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """The sum of every rank's array of one shape, in double precision."""
    if world.world_size == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.from_numpy(values.astype(np.float64)).to(device)
    dist.all_reduce(total)
    return total.cpu().numpy()


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
