"""Ranks, devices, process groups and stop requests. Without launcher variables every job is a single process.

SIGTERM, SIGUSR2, SIGHUP and a first Ctrl-C ask for a clean stop: the worker gives its unit back (or saves its step) and
exits with 75. A second Ctrl-C does not wait for the step.
"""

import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from genloop import terminal
from genloop.rundir import BadInput

if TYPE_CHECKING:
    from types import FrameType

    from torch.distributed import Store

EXIT_STOPPED = 75
STOPPING = "genloop: stopping after this step; again to kill"
_listening: "list[World]" = []  # whose `stop_signals` is open
BEAT = "GENLOOP_BEAT"  # set by the launcher: the file whose time says when this worker last reached a safe point
_BEAT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCHERS = (  # rank, world size and local rank as torchrun, srun and two kinds of mpirun set them, in this order
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK"),
)
_NODES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
_PORTS = range(20000, 30000)  # below those that a system hands out by itself


class StopRequested(BaseException):
    """Unwinds a worker that was asked to stop; not an Exception, so that no recovery code swallows it."""


@dataclass(frozen=True)
class World:
    """Who this process is among those that work on the same run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    master: tuple[str, int] | None = None  # host and port where rank 0 listens, as far as the launcher says
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _steps: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "World":
        """Read the variables of a launcher, or stand alone; ValueError when they contradict each other.

        Slurm counts only inside of srun: an allocation alone sets SLURM_NTASKS, but starts nothing.
        """
        if ("RANK" in environment) != ("WORLD_SIZE" in environment):
            raise ValueError("only one of RANK and WORLD_SIZE is set; a launcher sets both, unset it to run alone")
        started = [names for names in LAUNCHERS if all(name in environment for name in names[:2])]
        if not started:
            return cls()
        names = next(
            (names for names in started if names[:2] == started[0][:2] and names[2] in environment), started[0]
        )
        rank, world_size, local_rank = (_number(environment, name) for name in names)
        if not 0 <= rank < world_size:
            raise ValueError(f"{names[0]} is {rank}, {names[1]} is {world_size}: the rank must be below the world size")
        return cls(rank, world_size, local_rank, _master(environment))

    def gpu(self, num_visible: int) -> int:
        """Which of the GPUs that this process sees is its own: workers of a machine take them in turn.

        A launcher may show each worker its own GPU alone; that is number 0 then, whatever the local rank.
        """
        return self.local_rank % num_visible

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

    def step(self) -> None:
        """A step of work within a unit begins: counted for the status, and a safe point as in `check_stop`."""
        self._steps[0] += 1
        self.check_stop()

    def at_step(self, number: int) -> None:
        """So many steps of a training are done: for the status alone, ranks stop together and not here."""
        self._steps[0] = number

    @property
    def steps(self) -> int:
        """How many steps this worker has begun."""
        return self._steps[0]

    @contextmanager
    def stop_signals(self) -> Iterator[None]:
        """Turn SIGTERM, SIGUSR2, SIGHUP and, below torchrun, SIGQUIT into stop requests in the body (main thread only).

        SIGHUP stays ignored below nohup. A first Ctrl-C is a stop request too, and answered at once; a second one is a
        KeyboardInterrupt.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        chosen = [signal.SIGTERM, signal.SIGUSR2, *([signal.SIGQUIT] if "TORCHELASTIC_RUN_ID" in os.environ else [])]
        chosen += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
        _listening.append(self)
        before = {number: signal.signal(number, lambda *_: self.request_stop()) for number in chosen}
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            _listening.remove(self)
            for number, previous in before.items():
                signal.signal(number, previous)

    def _interrupted(self, number: int, frame: "FrameType | None") -> None:
        """Ctrl-C."""
        if self._stop.is_set():
            signal.default_int_handler(number, frame)
        self.request_stop()  # first: the answer may bring the second
        terminal.err_at_once(STOPPING)


def stop_requested() -> bool:
    """Whether the job of this process was asked to stop; for what waits in a place that knows no World."""
    return any(world.stop_requested() for world in _listening)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have this process sent a signal when the one that started it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


_last_beat = [0.0]


def _beat() -> None:
    path, now = os.environ.get(BEAT), time.monotonic()
    if path and now - _last_beat[0] > _BEAT_SECONDS:
        _last_beat[0] = now
        with suppress(OSError):
            os.utime(path)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0")
    if not text.isdecimal():
        raise ValueError(f"{name} is {text!r}, expected a number")
    return int(text)


def _master(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """MASTER_ADDR and MASTER_PORT; in an allocation of Slurm the first node, and a port of the job and its step."""
    nodes = next((environment[name] for name in _NODES if name in environment), "")
    host = environment.get("MASTER_ADDR") or _first_host(nodes)
    if "MASTER_PORT" in environment:
        port = _number(environment, "MASTER_PORT")
    elif "SLURM_JOB_ID" in environment:
        steps = _number(environment, "SLURM_JOB_ID") * 16 + _number(environment, "SLURM_STEP_ID")
        port = _PORTS[steps % len(_PORTS)]
    else:
        port = 0
    return (host, port) if host and port else None


def _first_host(nodes: str) -> str:
    """The first of a list as Slurm writes it: gpu[07-09,12],login1 -> gpu07."""
    first = re.match(r"(?:[^,\[]|\[[^]]*\])*", nodes)
    return re.sub(r"\[([^],-]*)[^]]*\]", r"\1", first[0]) if first else ""


def choose_device(wanted: str, world: World) -> str:
    """auto | cpu | cuda -> the torch device of this worker; meta, which no config has, stays meta."""
    import torch

    if wanted == "meta":
        return wanted
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError(f"device: {wanted} is asked for, but torch finds no GPU; use cpu or auto")
    index = world.gpu(torch.cuda.device_count())
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def gpu_peak() -> dict[str, int]:
    """{"peak_bytes": the most that tensors of this process took on its GPU}; empty without one."""
    torch = sys.modules.get("torch")  # what has not been imported holds nothing
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"peak_bytes": torch.cuda.max_memory_allocated()}


@contextmanager
def process_group(world: World, *, device: str = "cpu", timeout: float = 1800.0) -> Iterator[None]:
    """Open torch's process group for a collective job: nccl on cuda, gloo elsewhere; nothing for a single process.

    BadInput where no launcher says where rank 0 listens, and where two ranks would share a GPU, which nccl cannot.
    """
    import torch
    import torch.distributed as dist

    if world.world_size == 1:
        yield
        return
    if world.master is None:
        raise BadInput(
            f"MASTER_ADDR and MASTER_PORT must say where rank 0 of {world.world_size} listens; torchrun sets them, "
            "mpirun does not"
        )
    host, port = world.master
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = host, str(port)
    limit = timedelta(seconds=timeout)
    on_gpu = device.startswith("cuda")
    try:
        socket.getaddrinfo(host, port)  # a name that nobody knows would be tried until the time is over
        store, _, _ = next(dist.rendezvous("env://", world.rank, world.world_size, timeout=limit))
    except (dist.DistError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BadInput(f"MASTER_ADDR and MASTER_PORT: no meeting of the ranks at {host}:{port} ({first})") from error
    if on_gpu:
        _check_gpus(store, world, str(torch.cuda.get_device_properties(device).uuid))
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore("default", store),
        rank=world.rank,
        world_size=world.world_size,
        timeout=limit,
        device_id=torch.device(device) if on_gpu else None,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _check_gpus(store: "Store", world: World, uuid: str) -> None:
    """Every rank has a GPU of its own; BadInput on rank 0, the same exit code on the others, when two share one."""
    store.set(f"gpu/{world.rank}", uuid)
    owners: dict[str, int] = {}
    for rank in range(world.world_size):
        found = store.get(f"gpu/{rank}").decode()
        if found in owners:
            if world.rank:
                raise SystemExit(BadInput.exit_code)
            raise BadInput(
                f"ranks {owners[found]} and {rank} have one GPU ({found}); start at most one rank a GPU, "
                "or use train.device=cpu"
            )
        owners[found] = rank
