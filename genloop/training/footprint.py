"""What a rank of a training holds: two steps of the real learner on the meta device, divided as ZeRO divides them."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.distributed import World
from genloop.models.common.footprint import Rehearsal, rehearsal
from genloop.planning import Footprint
from genloop.training.loading import Loading
from genloop.training.loop import prepare_model
from genloop.training.replicated import Replicated
from genloop.training.settings import LoopSettings
from genloop.training.task import Objective

_PASSES = 2  # of a step: the second adds to gradients
_STEPS = 2  # the first makes moments and gradients, the second works beside them


def training_footprint(
    build: Callable[[], Objective[Any, Any]], settings: LoopSettings, *, seed: int, device: str, ranks: int
) -> Footprint:
    """`build` makes the objective with its model on the meta device; its data are read, no weight is.

    Without sharding every rank holds the same. Stages 1 to 3 divide moments, gradients and weights by the ranks, as
    docs/training.md tells; stages 1 and 2 hold a rank's share of the weights twice.
    """
    with rehearsal(device) as tracker:
        with tracker.part("weights"):
            objective = build()
            prepare_model(objective.model, settings)
        with tempfile.TemporaryDirectory() as nowhere:
            learner = Replicated(objective, settings, Path(nowhere), World())
        stage = settings.zero_stage if ranks > 1 else 0
        learner.precision.caches = stage < 3
        passes, updates = _rehearse(tracker, objective, learner, settings, seed, ranks)
        trained = list(learner.trained.values())
        parts = tracker.parts | {
            "gradients": _bytes(p.grad for p in trained if p.grad is not None),
            "optimiser": _bytes(v for state in learner.optimizer.state.values() for v in state.values()),
        }
        if learner.ema is not None:
            parts["EMA"] = _bytes(learner.ema.averages.values())
    held = sum(parts.values())
    gathered = _gathered(objective.model)
    working = passes - held, updates - held
    saved = settings.keep * (3 * _bytes(trained) + parts.get("EMA", 0))
    disk = {"checkpoints": saved, "model": _bytes(objective.model.parameters())}
    return Footprint(*_sharded(parts, working, stage, ranks, gathered), disk)


def _rehearse(
    tracker: Rehearsal,
    objective: Objective[Any, Any],
    learner: Replicated[Any],
    settings: LoopSettings,
    seed: int,
    ranks: int,
) -> tuple[int, int]:
    """Peaks of the passes, and of the updates."""
    reading = Loading(
        objective,
        settings.model_copy(update={"loaders": 0}),
        World(0, ranks),
        first=1,
        device=torch.device("meta"),
        equal_passes=False,
        seed=seed,
    )
    passes = updates = 0
    for _, step in zip(range(_STEPS), reading.steps(lambda number: settings.lr)):
        learner.add_up(replace(step, micro_batches=islice(step.micro_batches, _PASSES)))
        passes = max(passes, tracker.take_peak())
        learner.step(step)
        updates = max(updates, tracker.take_peak())
        deque(step.micro_batches, maxlen=0)  # the others are no larger
    return passes, updates


def _sharded(
    parts: dict[str, int], working: tuple[int, int], stage: int, ranks: int, gathered: int
) -> tuple[dict[str, int], int]:
    """Parts of a rank, and what passes and updates need beside them at the most."""
    passes, updates = working
    if not stage:
        return parts, max(passes, updates)
    share = dict(parts)
    divided = {1: ("optimiser",), 2: ("optimiser", "gradients"), 3: tuple(parts)}[stage]
    for name in divided:
        share[name] = -(-parts[name] // ranks)
    if stage < 3:
        share["own share of the weights"] = -(-parts["weights"] // ranks)
        return share, max(passes, updates // ranks)
    share["gathered weights"] = gathered
    return share, max(passes, updates // ranks)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _gathered(model: torch.nn.Module) -> int:
    """What stage 3 holds whole: the layer at work, the next one, and all that is in no list of layers."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = [block for layers in lists for block in layers]
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = _bytes(parameter for parameter in model.parameters() if id(parameter) not in inside)
    return outside + 2 * max((_bytes(block.parameters()) for block in blocks), default=0)
