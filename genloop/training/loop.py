"""The one train loop: batches and a loss come from the job; order, averaging over ranks, saving and resuming from here.

Nothing is random here. A job's `batch_of(step)` returns the whole batch of a step on every rank; each rank works on its
share of the rows, and gradients are sums divided by one weight over all ranks. So the loss of a step depends on the
config alone, up to the order of float additions: not on world size, restarts, micro-batches or what the ranks share.
On one process a resumed run gives the very bits of an uninterrupted one.
"""

import time
from pathlib import Path

from genloop.distributed import StopRequested, World
from genloop.job import note
from genloop.rundir import append_metrics
from genloop.training.optimizer import learning_rate
from genloop.training.replicated import Replicated
from genloop.training.state import cut_metrics
from genloop.training.task import B, Loss, Task
from genloop.training.zero import Partitioned

__all__ = ["Loss", "Task", "train"]


def train(task: Task[B], run: Path, world: World) -> None:
    """Train from the newest checkpoint in RUN/checkpoints (or from the model as it is) to `num_steps`.

    Saves every `save_every` steps, at the end, and when a stop is asked for: then raises StopRequested on all ranks.
    """
    settings = task.settings
    if world.world_size > settings.batch_size:
        raise ValueError(f"train.batch_size: {settings.batch_size} rows are too few for {world.world_size} ranks")
    is_shared = settings.zero_stage > 0 and world.world_size > 1
    learner = Partitioned(task, run, world) if is_shared else Replicated(task, run, world)
    progress = learner.progress
    if world.rank == 0:
        cut_metrics(run, progress.step)
    task.model.train()
    clock, clocked = time.monotonic(), progress.step
    while progress.step < settings.num_steps:
        step = progress.step + 1
        rate = learning_rate(step, settings)
        with note(f"rank {world.rank}, step {step}"):
            stop, norm, sums = learner.step(step, rate)
        progress.step = step
        progress.add(sums)
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
        if task.after_step and step % task.after_every == 0:
            with learner.whole():
                found = task.after_step(step)
            if found and world.rank == 0:
                append_metrics(run, {"step": step, **found})
        if stop or is_last or step % settings.save_every == 0:
            learner.save(run, progress)
        if stop:
            raise StopRequested
    learner.close()
