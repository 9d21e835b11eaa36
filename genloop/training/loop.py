"""The one train loop: an objective says what a step looks at and its loss; order, averages over ranks, saving and
resuming are done here.

Each rank loads and computes its share of the items; gradients are sums divided by the weight of the whole batch. So
the loss of a step depends on the config alone, up to the order of float additions: not on the number of ranks,
restarts, micro-batches, loaders or what the ranks shard. On one process a resumed run gives the very bits of an
uninterrupted one.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from genloop.distributed import StopRequested, World
from genloop.job import note
from genloop.models.common.memory import Budget
from genloop.rundir import RunFailed
from genloop.training.lines import Lines
from genloop.training.loading import Loading
from genloop.training.optimizer import learning_rate
from genloop.training.passes import checkpoint_activations
from genloop.training.reductions import wait_for_all
from genloop.training.replicated import Replicated
from genloop.training.session import check_lock
from genloop.training.settings import LoopSettings
from genloop.training.sharded import sharded_learner
from genloop.training.state import Progress, checkpoints, cut_lines
from genloop.training.task import Decision, Objective, Step, Watch


def train(objective: Objective[Any, Any], settings: LoopSettings, run: Path, world: World, *, seed: int = 0) -> None:
    """Train from the newest checkpoint in RUN/checkpoints (or from the model as it is) to `num_steps`.

    Saves every `save_every` steps, at the end, and when a stop is asked for: then raises StopRequested on all ranks.
    An objective's guard may end it early. `seed` keys dropout. RunFailed when too many steps in a row have no finite
    gradient.
    """
    if (num_items := len(objective.plan(1).items)) < world.world_size:
        raise ValueError(f"a batch of {num_items} items is too small for {world.world_size} ranks")
    prepare_model(objective.model, settings)
    is_sharded = settings.zero_stage > 0 and world.world_size > 1
    learner = (sharded_learner(settings.zero_stage) if is_sharded else Replicated)(objective, settings, run, world)
    progress = learner.progress
    guard, lines = objective.guard, Lines(run, settings, world, progress, objective.guard)
    _begin(objective, learner, lines, run, world)
    device = next(objective.model.parameters()).device
    equal = learner.equal_passes
    budget = Budget(settings.rows_per_forward, "train.rows_per_forward", learner.discard)
    readers = ExitStack()

    def read(first: int) -> Iterator[Step[Any]]:
        readers.close()
        fitting = settings.model_copy(update={"rows_per_forward": budget.limit})
        loading = Loading(objective, fitting, world, first=first, device=device, equal_passes=equal, seed=seed)
        return readers.enter_context(closing(loading)).steps(lambda number: learning_rate(number, settings))

    first, prepared = progress.step + 1, 0
    steps = read(first)
    with readers, closing(lines):
        while progress.step < settings.num_steps and not (guard and guard.is_stopped):
            number = progress.step + 1
            every = objective.prepare_every * (number != prepared)  # once, also where the step is tried again
            if every and (number == first or (number - 1) % every == 0):
                _prepare(objective, learner, lines, run, world)
                prepared = number
            with note(f"rank {world.rank}, step {number}"):
                step = next(steps)
                rows = min(budget.limit, step.num_items)
                can_shrink = rows > 1 and world.world_size == 1  # no rank may do other passes than the others expect
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
            is_news = lines.log(step.lr, outcome.grad_norm, step.num_items)
            is_news |= _look(objective, learner, lines, world)
            decision = guard.decision() if guard is not None and is_news else Decision()
            is_due = number == settings.num_steps or number % settings.save_every == 0
            if is_due or outcome.stop or decision.keep or decision.stop:
                _save(learner, run, world, guard, decision)
            if outcome.stop and not decision.stop:
                raise StopRequested
    learner.close()
    if guard is not None:
        guard.conclude(objective.model, use_averages=settings.ema > 0 and settings.use_ema)


def _prepare(objective: Objective[Any, Any], learner: Any, lines: Lines, run: Path, world: World) -> None:
    """What the objective prepares for the steps to come may become a line of metrics.jsonl.

    It may stop in the middle where there is one process; the steps done are saved then.
    """
    number = learner.progress.step + 1
    try:
        with _evaluating(objective.model), note(f"rank {world.rank}, before step {number}"):
            found = objective.prepare(number, learner.gathered)
    except StopRequested:
        _save(learner, run, world, None, Decision())
        raise
    if found:
        lines.add({"step": number, **found})


def _begin(objective: Objective[Any, Any], learner: Any, lines: Lines, run: Path, world: World) -> None:
    """What is done before the first step, with the whole model; its findings are the line of step 0."""
    step, guard = learner.progress.step, objective.guard
    if world.rank == 0:
        cut_lines(run / "metrics.jsonl", step or -1)
    is_tested = type(objective).before_training is not Objective.before_training
    if guard is None and not is_tested:
        return
    with learner.gathered(), _evaluating(objective.model), note(f"rank {world.rank}, before step {step + 1}"):
        found = dict(objective.before_training(step) or {})
        found |= guard.begin(step) if guard is not None else {}
    if found and not step:
        lines.add({"step": 0, **found})
    if guard is not None and not step and (decision := guard.decision()).keep:
        _save(learner, run, world, guard, decision)


def _look(objective: Objective[Any, Any], learner: Any, lines: Lines, world: World) -> bool:
    """What objective and guard find in the model after a step, as a line -> whether it was time to look."""
    step, guard = learner.progress.step, objective.guard
    is_due = objective.after_every > 0 and step % objective.after_every == 0
    is_watched = guard is not None and guard.every > 0 and step % guard.every == 0
    if not (is_due or is_watched):
        return False
    with learner.gathered(), _evaluating(objective.model), note(f"rank {world.rank}, after step {step}"):
        found = dict((objective.after_step(step) if is_due else None) or {})
        if guard is not None and is_watched:
            found |= guard.after_step(step)
    if found:
        lines.add({"step": step, **found})
    return True


def _save(learner: Any, run: Path, world: World, guard: Watch | None, decision: Decision) -> None:
    """The checkpoint of the steps done, whole when this returns."""
    check_lock(run)
    learner.save()
    if guard is not None and world.rank == 0:
        guard.saved(learner.progress.step, decision)
    wait_for_all(world)  # here, for train.timeout: groups of DeepSpeed's own give up after ten minutes


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout while the body runs."""
    model.eval()
    yield
    model.train()


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
