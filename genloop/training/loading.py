"""Micro-batches of a rank, read ahead: plans are made here, items are loaded by worker processes of torch's DataLoader.

The order of micro-batches follows from the plans, so results do not depend on the number of workers.
"""

import math
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from genloop.distributed import World, end_with_parent
from genloop.training.passes import pass_seed
from genloop.training.settings import LoopSettings
from genloop.training.task import B, I, MicroBatch, Objective, Plan, Step

_LOADERS_OF_A_GPU = min(4, os.cpu_count() or 1)
_AHEAD = 2  # micro-batches that a worker reads ahead


class Loading(Generic[I, B]):
    """The steps of a rank from `first` to the end of the run; to be closed, also after an error."""

    def __init__(
        self,
        objective: Objective[I, B],
        settings: LoopSettings,
        world: World,
        *,
        first: int,
        device: torch.device,
        equal_passes: bool,
        seed: int,
    ) -> None:
        self._objective, self._settings, self._world = objective, settings, world
        self._first, self._device, self._equal_passes, self._seed = first, device, equal_passes, seed
        self._planned: deque[tuple[Plan[I], int, int]] = deque()  # plan without items, number of items, own passes
        is_cuda = device.type == "cuda"
        workers = settings.loaders if settings.loaders is not None else _LOADERS_OF_A_GPU * is_cuda
        self._iterator: Any = None
        self._loader: DataLoader[Any] = DataLoader(
            _Items(objective),
            batch_size=None,
            sampler=self._requests(),
            num_workers=workers,
            pin_memory=is_cuda,
            prefetch_factor=_AHEAD if workers else None,
            worker_init_fn=_start_worker if workers else None,
            multiprocessing_context="fork" if workers else None,
        )

    def steps(self, lr_of: Callable[[int], float]) -> Iterator[Step[B]]:
        """The steps in order; the micro-batches of one must be used before the next is asked for."""
        loaded = self._iterator = iter(self._loader)
        for number in range(self._first, self._settings.num_steps + 1):
            first = next(loaded)
            plan, num_items, passes = self._planned.popleft()
            batches = self._micro_batches(number, first, loaded, num_items, passes)
            yield Step(number, lr_of(number), plan.weight, num_items, batches)

    def close(self) -> None:
        """End the processes that read ahead; one that is in the middle of an item gets some seconds.

        An error's traceback keeps the iterator alive, and one that is collected as part of a cycle cannot tell its
        processes to end: they ignore SIGTERM, and multiprocessing waits for them when this process exits.
        """
        if isinstance(self._iterator, _MultiProcessingDataLoaderIter):
            self._iterator._shutdown_workers()
            for worker in self._iterator._workers:
                worker.kill()

    def _micro_batches(
        self, step: int, first: "_Loaded", loaded: Iterator["_Loaded"], num_items: int, passes: int
    ) -> Iterator[MicroBatch[B]]:
        own = len(range(num_items)[self._world.rank :: self._world.world_size])
        for number in range(passes):
            batch = (first if number == 0 else next(loaded)).unpack()
            is_counted = number * self._settings.rows_per_forward < own
            moved = mapped(batch, lambda tensor: tensor.to(self._device, non_blocking=True))
            seed = pass_seed(self._seed, step, self._world.rank, number)
            yield MicroBatch(moved, seed, number == passes - 1, is_counted)

    def _requests(self) -> Iterator[tuple[Sequence[I], Plan[I]]]:
        """The arguments of `load`, in order; DataLoader asks for them ahead of time, in this process."""
        rank, size, rows = self._world.rank, self._world.world_size, self._settings.rows_per_forward
        for step in range(self._first, self._settings.num_steps + 1):
            plan = self._objective.plan(step)
            if len(plan.items) < size:  # a rank without items would leave the others waiting
                raise ValueError(f"step {step}: a batch of {len(plan.items)} items is too small for {size} ranks")
            own = plan.items[rank::size]
            most = math.ceil(len(plan.items) / size) if self._equal_passes else len(own)
            starts = range(0, most, rows)
            light = replace(plan, items=())
            self._planned.append((light, len(plan.items), len(starts)))
            for start in starts:
                yield own[start : start + rows] or own[:1], light


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in its dataclasses, mappings and sequences changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        new = {name: mapped(part, change) for name, part in found.items()}
        return replace(value, **new) if any(new[name] is not found[name] for name in found) else value
    if isinstance(value, Mapping):
        new = {key: mapped(part, change) for key, part in value.items()}
        return new if any(new[key] is not value[key] for key in new) else value
    if isinstance(value, list | tuple):
        parts = [mapped(part, change) for part in value]
        return type(value)(parts) if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    return value


@dataclass
class _Loaded:
    """What came of a request: a batch, or the error that its worker met and where."""

    batch: Any = None
    error: Exception | None = None
    trace: str = ""

    def pin_memory(self) -> "_Loaded":
        """DataLoader calls this in a thread of its own."""
        return replace(self, batch=mapped(self.batch, Tensor.pin_memory))

    def unpack(self) -> Any:
        """The batch; raises the worker's error, notes and all."""
        if self.error is not None:
            raise self.error from (_WorkerTraceback(self.trace) if self.trace else None)
        return self.batch


class _WorkerTraceback(Exception):
    """Shows where in a worker process an error was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Items(Dataset[Any]):
    """DataLoader's data set: its indices are requests."""

    def __init__(self, objective: Objective[Any, Any]) -> None:
        self._objective = objective

    def __getitem__(self, request: tuple[Sequence[Any], Plan[Any]]) -> _Loaded:
        if torch.utils.data.get_worker_info() is None:
            return _Loaded(self._objective.load(*request))
        try:
            return _Loaded(self._objective.load(*request))
        except Exception as error:  # noqa: BLE001 - raised again by the process that trains
            trace = "".join(traceback.format_exception(error))
            return _Loaded(error=error if _travels(error) else _told(error), trace=trace)


def _travels(error: Exception) -> bool:
    """Whether an error comes whole out of another process."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except (TypeError, AttributeError, pickle.PicklingError):
        return False


def _told(error: Exception) -> RuntimeError:
    """What can be told of an error that does not."""
    found = RuntimeError(repr(error))
    for text in getattr(error, "__notes__", []):
        found.add_note(text)
    return found


def _start_worker(number: int) -> None:
    """A worker ends with the process that trains, not with signals that ask for a clean stop."""
    end_with_parent(signal.SIGKILL)
    if os.getppid() == 1:  # the trainer ended before the line above
        os._exit(1)
    for asked in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(asked, signal.SIG_IGN)
