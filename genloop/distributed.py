"""Ranks, process groups and stop requests. Without launcher variables every job is a single process.

SIGTERM and SIGUSR2 ask for a clean stop: the worker gives its unit back (or saves its step) and exits with 75.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

EXIT_STOPPED = 75


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
        """Read torchrun's variables, or Slurm's, or stand alone; ValueError when they contradict each other."""

        def number(names: tuple[str, ...], default: int) -> int:
            for name in names:
                if name in os.environ:
                    return int(os.environ[name])
            return default

        rank = number(("RANK", "SLURM_PROCID"), 0)
        world_size = number(("WORLD_SIZE", "SLURM_NTASKS"), 1)
        if not 0 <= rank < world_size:
            raise ValueError(f"RANK is {rank}, WORLD_SIZE is {world_size}: the rank must be below the world size")
        return cls(rank, world_size, number(("LOCAL_RANK", "SLURM_LOCALID"), 0))

    @property
    def name(self) -> str:
        """Unique on a run folder: host, process and rank."""
        return f"{socket.gethostname()}-{os.getpid()}-r{self.rank}"

    def request_stop(self) -> None:
        """Ask this process to stop at its next safe point."""
        self._stop.set()

    def stop_requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise StopRequested when a stop was asked for."""
        if self._stop.is_set():
            raise StopRequested

    @contextmanager
    def stop_signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGUSR2 into stop requests while the body runs (main thread only)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        chosen = (signal.SIGTERM, signal.SIGUSR2)
        before = {number: signal.signal(number, lambda *_: self.request_stop()) for number in chosen}
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)


@contextmanager
def process_group(world: World, *, device: str = "cpu", timeout: float = 300.0) -> Iterator[None]:
    """Open torch's process group for a collective job: nccl on cuda, gloo elsewhere; nothing for a single process."""
    import torch.distributed as dist

    if world.world_size == 1:
        yield
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, rank=world.rank, world_size=world.world_size, timeout=timedelta(seconds=timeout))
    try:
        yield
    finally:
        dist.destroy_process_group()
