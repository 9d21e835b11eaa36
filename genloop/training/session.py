"""What surrounds a collective training: threads, device, process group, and a lock on the run folder."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from genloop.distributed import World, choose_device, process_group
from genloop.lease import HEARTBEAT, Lease
from genloop.rundir import BadInput, RunFailed
from genloop.training.settings import LoopSettings
from genloop.worker_status import WorkerStatus, ending

TRAINING = "training"  # the state of rank 0, which speaks for all, in its status file
_held: dict[Path, Lease] = {}  # run -> the lock by which this process, rank 0, trains in it


@contextmanager
def training_session(run: Path, settings: LoopSettings, world: World) -> Iterator[str]:
    """-> the device of this rank, while the process group is open and no other launcher may train in `run`."""
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device, world)
    with process_group(world, device=device, timeout=settings.timeout), locked(run, world, device):
        yield device


@contextmanager
def locked(run: Path, world: World, device: str = "cpu") -> Iterator[None]:
    """Hold RUN/training.lock; BadInput on rank 0, and the same exit code on the others, when a living run holds it."""
    staging = run / "tmp"
    staging.mkdir(parents=True, exist_ok=True)
    lock = Lease(run / "training.lock", staging, world.name)
    is_ours = torch.tensor(world.rank != 0 or lock.acquire(), dtype=torch.int64, device=device)
    if world.world_size > 1:
        dist.all_reduce(is_ours, dist.ReduceOp.MIN)
    if not is_ours:
        if world.rank:
            raise SystemExit(BadInput.exit_code)
        raise BadInput(f"{run} is being trained by {lock.holder()}; wait for its end, or use another `out`")
    closing = threading.Event()
    status, error = WorkerStatus(run, world, staging), None
    heartbeat = threading.Thread(target=_beat, args=(lock, status, closing), name="lock-heartbeat", daemon=True)
    if world.rank == 0:
        _held[run] = lock
        heartbeat.start()
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        closing.set()
        if world.rank == 0:
            del _held[run]
            heartbeat.join()
            status.write(ending(error))
            lock.release()
            for leftover in [staging / f"clock.{world.name}", *staging.glob(f".{lock.path.name}.*.tmp")]:
                leftover.unlink(missing_ok=True)  # the others: of launchers that were killed
            with contextlib.suppress(OSError):
                staging.rmdir()


def check_lock(run: Path) -> None:
    """RunFailed when another launcher has taken over the run that this process trains; asked before it writes."""
    if run in _held and _held[run].is_lost():
        raise RunFailed(
            f"{run} was taken over by another launcher while this one was suspended; it is left to the other"
        )


def _beat(lock: Lease, status: WorkerStatus, closing: threading.Event) -> None:
    status.write(TRAINING)
    while not closing.wait(HEARTBEAT):
        lock.beat()
        status.write(TRAINING)
