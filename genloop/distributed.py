"""Ranks, process groups and stop requests. Without launcher variables every job is a single process.

SIGTERM and SIGUSR2 ask for a clean stop: the worker gives its unit back (or saves its step) and exits with 75.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from genloop.rundir import BadInput

EXIT_STOPPED = 75
_listening: "list[World]" = []  # whose `stop_signals` is open
BEAT = "GENLOOP_BEAT"  # set by the launcher: the file whose time says when this worker last reached a safe point
_BEAT_SECONDS = 1.0
LAUNCHERS = (  # rank, world size and local rank as torchrun, srun and two kinds of mpirun set them, in this order
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


class StopRequested(BaseException):
    """Unwinds a worker that was asked to stop; not an Exception, so that no recovery code swallows it."""


@dataclass(frozen=True)
class World:
    """Who this process is among those that work on the same run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def from_environment(cls) -> "World":
        """Read the variables of a launcher, or stand alone; ValueError when they contradict each other.

        Slurm counts only inside of srun: an allocation alone sets SLURM_NTASKS, but starts nothing.
        """
        if ("RANK" in os.environ) != ("WORLD_SIZE" in os.environ):
            raise ValueError("only one of RANK and WORLD_SIZE is set; a launcher sets both, unset it to run alone")
        names = next((names for names in LAUNCHERS if all(name in os.environ for name in names[:2])), None)
        if names is None:
            return cls()
        rank, world_size, local_rank = (_number(name) for name in names)
        if not 0 <= rank < world_size:
            raise ValueError(f"{names[0]} is {rank}, {names[1]} is {world_size}: the rank must be below the world size")
        return cls(rank, world_size, local_rank)

    @property
    def name(self) -> str:
        """Unique on a run folder: host, process and rank."""
        return f"{socket.gethostname()}-{os.getpid()}-r{self.rank}"

    def request_stop(self) -> None:
        """Ask this process to stop at its next safe point."""
        self._stop.set()

    def stop_requested(self) -> bool:
        """Whether a stop was asked for. Asking tells the launcher that this worker moves."""
        _beat()
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise StopRequested when a stop was asked for."""
        if self.stop_requested():
            raise StopRequested

    @contextmanager
    def stop_signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGUSR2 into stop requests while the body runs (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        chosen = (signal.SIGTERM, signal.SIGUSR2)
        _listening.append(self)
        before = {number: signal.signal(number, lambda *_: self.request_stop()) for number in chosen}
        try:
            yield
        finally:
            _listening.remove(self)
            for number, previous in before.items():
                signal.signal(number, previous)


def stop_requested() -> bool:
    """Whether the job of this process was asked to stop; for what waits in a place that knows no World."""
    return any(world.stop_requested() for world in _listening)


_last_beat = [0.0]


def _beat() -> None:
    path, now = os.environ.get(BEAT), time.monotonic()
    if path and now - _last_beat[0] > _BEAT_SECONDS:
        _last_beat[0] = now
        with suppress(OSError):
            os.utime(path)


def _number(name: str) -> int:
    text = os.environ.get(name, "0")
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}, expected a number")
    return int(text)


def choose_device(wanted: str, world: World) -> str:
    """auto | cpu | cuda -> the torch device of this worker: workers of a machine take its GPUs in turn."""
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(f"device: {wanted} is asked for, but torch finds no GPU; use cpu or auto")
    index = world.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(index)
    return f"cuda:{index}"


@contextmanager
def process_group(world: World, *, device: str = "cpu", timeout: float = 1800.0) -> Iterator[None]:
    """Open torch's process group for a collective job: nccl on cuda, gloo elsewhere; nothing for a single process."""
    import torch.distributed as dist

    if world.world_size == 1:
        yield
        return
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise BadInput(
            f"{' and '.join(missing)} must say where rank 0 of {world.world_size} listens; torchrun sets them"
        )
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, rank=world.rank, world_size=world.world_size, timeout=timedelta(seconds=timeout))
    try:
        yield
    finally:
        dist.destroy_process_group()
