"""Sums over ranks, in double precision."""

import numpy as np
import torch
import torch.distributed as dist

from genloop.distributed import World


def add_over_ranks(sums: dict[str, float], world: World) -> bool:
    """Add up `sums` in place -> whether any rank was asked to stop: all must stop at the same step."""
    if world.world_size == 1:
        return world.stop_requested()
    names = sorted(sums)
    numbers = [sums[name] for name in names] + [float(world.stop_requested())]
    values = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(values)
    *totals, stops = values.tolist()
    sums.update(zip(names, totals, strict=True))
    return stops > 0


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """The sum of every rank's array of one shape, in double precision."""
    if world.world_size == 1:
        return values
    total = torch.from_numpy(values.astype(np.float64)).to(_device())
    dist.all_reduce(total)
    return total.cpu().numpy()


def largest_over_ranks(number: int) -> int:
    """The largest of every rank's number."""
    value = torch.tensor(number, device=_device())
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def wait_for_all(world: World) -> None:
    """Return when every rank has come here; the first one waits for at most the time-out of the process group."""
    if world.world_size > 1:
        largest_over_ranks(0)


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
