"""The one train loop: an objective says what a step looks at and its loss; order, averages over ranks, saving and
resuming are done here.

Each rank loads and computes its share of the items; gradients are sums divided by the weight of the whole batch. So
the loss of a step depends on the config alone, up to the order of float additions: not on the number of ranks,
restarts, micro-batches, loaders or what the ranks shard. On one process a resumed run gives the very bits of an
uninterrupted one.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from genloop.distributed import StopRequested, World, gpu_peak
from genloop.job import note
from genloop.models.common.memory import Budget
from genloop.rundir import RunFailed, append_metrics
from genloop.training.loading import Loading
from genloop.training.optimizer import learning_rate
from genloop.training.passes import checkpoint_activations
from genloop.training.reductions import wait_for_all
from genloop.training.replicated import Replicated
from genloop.training.session import check_lock
from genloop.training.settings import LoopSettings
from genloop.training.sharded import sharded_learner
from genloop.training.state import Progress, checkpoints, cut_metrics
from genloop.training.task import Gathered, Objective, Step


def train(objective: Objective[Any, Any], settings: LoopSettings, run: Path, world: World, *, seed: int = 0) -> None:
    """Train from the newest checkpoint in RUN/checkpoints (or from the model as it is) to `num_steps`.

    Saves every `save_every` steps, at the end, and when a stop is asked for: then raises StopRequested on all ranks.
    `seed` keys dropout. RunFailed when too many steps in a row have no finite gradient.
    """
    if (num_items := len(objective.plan(1).items)) < world.world_size:
        raise ValueError(f"a batch of {num_items} items is too small for {world.world_size} ranks")
    prepare_model(objective.model, settings)
    is_sharded = settings.zero_stage > 0 and world.world_size > 1
    learner = (sharded_learner(settings.zero_stage) if is_sharded else Replicated)(objective, settings, run, world)
    progress = learner.progress
    if world.rank == 0:
        cut_metrics(run, progress.step)
    device = next(objective.model.parameters()).device
    equal = learner.equal_passes
    budget = Budget(settings.rows_per_forward, "train.rows_per_forward", learner.discard)
    readers = ExitStack()

    def read(first: int) -> Iterator[Step[Any]]:
        readers.close()
        fitting = settings.model_copy(update={"rows_per_forward": budget.limit})
        loading = Loading(objective, fitting, world, first=first, device=device, equal_passes=equal, seed=seed)
        return readers.enter_context(closing(loading)).steps(lambda number: learning_rate(number, settings))

    metrics, first = _Metrics(run, settings, world, progress), progress.step + 1
    steps = read(first)
    with readers:
        while progress.step < settings.num_steps:
            number = progress.step + 1
            if objective.prepare_every and (number == first or (number - 1) % objective.prepare_every == 0):
                with note(f"rank {world.rank}, before step {number}"):
                    _prepare(objective, number, learner.gathered, run, world)
            with note(f"rank {world.rank}, step {number}"):
                step = next(steps)
                rows = min(budget.limit, step.num_items)
                # one rank cannot do other passes than the others expect
                can_shrink = rows > 1 and world.world_size == 1
                if not budget.attempt(rows, partial(learner.add_up, step), can_shrink=can_shrink):
                    steps = read(number)
                    continue
                outcome = learner.step(step)
            progress.step = number
            if math.isfinite(outcome.grad_norm):
                assert math.isclose(outcome.sums["weight"], step.weight, rel_tol=1e-6), (outcome.sums, step.weight)
                progress.add(outcome.sums)
            else:
                _skip(progress, settings, run)
            metrics.log(step.lr, outcome.grad_norm, step.num_items)
            if objective.after_every and number % objective.after_every == 0:
                with learner.gathered(), note(f"rank {world.rank}, after step {number}"):
                    _after_step(objective, number, run, world)
            if outcome.stop or number == settings.num_steps or number % settings.save_every == 0:
                check_lock(run)
                learner.save()
                wait_for_all(world)  # here, for train.timeout: groups of DeepSpeed's own give up after ten minutes
            if outcome.stop:
                raise StopRequested
    learner.close()


def _prepare(objective: Objective[Any, Any], number: int, gathered: Gathered, run: Path, world: World) -> None:
    """What the objective prepares for the steps to come may become a line of metrics.jsonl."""
    objective.model.eval()
    found = objective.prepare(number, gathered)
    objective.model.train()
    _append(found, number, run, world)


def _after_step(objective: Objective[Any, Any], number: int, run: Path, world: World) -> None:
    """What the objective finds in its model becomes a line of metrics.jsonl."""
    objective.model.eval()
    found = objective.after_step(number)
    objective.model.train()
    _append(found, number, run, world)


def _append(found: Mapping[str, Any] | None, number: int, run: Path, world: World) -> None:
    if found and world.rank == 0:
        check_lock(run)
        append_metrics(run, {"step": number, **found})


def prepare_model(model: nn.Module, settings: LoopSettings) -> None:
    """For training: trained weights in float32, as in half precision one would not notice steps below a 256th of it."""
    if settings.gradient_checkpointing:
        checkpoint_activations(model)
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _skip(progress: Progress, settings: LoopSettings, run: Path) -> None:
    """Count a step without a finite gradient; RunFailed when there were too many in a row."""
    progress.skip()
    if progress.skipped_in_a_row > settings.max_skipped:
        saved = checkpoints(run)
        good = f"the newest good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        raise RunFailed(
            f"the gradient was not finite in {progress.skipped_in_a_row} steps in a row (train.max_skipped="
            f"{settings.max_skipped}), the last one step {progress.step}; {good}; lower train.lr or use another "
            "train.precision"
        )


class _Metrics:
    """Lines of metrics.jsonl: means since the last one, and the speed."""

    def __init__(self, run: Path, settings: LoopSettings, world: World, progress: Progress) -> None:
        self._run, self._settings, self._world, self._progress = run, settings, world, progress
        self._time, self._step = time.monotonic(), progress.step

    def log(self, lr: float, grad_norm: float, num_items: int) -> None:
        """Write a line when one is due."""
        progress, step = self._progress, self._progress.step
        if step != self._settings.num_steps and step % self._settings.log_every:
            return
        if self._world.rank == 0:
            now = time.monotonic()
            speed = (step - self._step) / (now - self._time)
            pace = {"steps_per_s": speed, "samples_per_s": num_items * speed}
            norm = {"grad_norm": grad_norm} if math.isfinite(grad_norm) else {}
            check_lock(self._run)
            append_metrics(self._run, {"step": step, **progress.mean(), "lr": lr, **norm, **pace, **gpu_peak()})
            self._time, self._step = now, step
        progress.clear()
