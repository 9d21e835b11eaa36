"""Average a number over all workers, step by step: the smallest collective job, for the tests of the launcher.

    genloop run tests.worlds.averaging_job out=runs/average --procs 2

Reads   a file with one whole number a rank.
Writes  RUN/metrics.jsonl.
Resume  the same command starts again.
"""

import time
from typing import Annotated

from pydantic import Field

from genloop.config import LAUNCH, InputPath, JobConfig
from genloop.distributed import World, process_group
from genloop.job import run
from genloop.rundir import append_metrics
from genloop.training.settings import TrainSettings

KIND = "collective"


class Config(JobConfig):
    """Whose numbers, and how often."""

    numbers: InputPath
    train: TrainSettings = TrainSettings(num_steps=2)
    hanging: Annotated[int | None, LAUNCH] = Field(
        None, ge=0, description="a rank that stands still from the first step on"
    )
    seconds: Annotated[float, LAUNCH] = Field(0.0, ge=0, description="how long one step takes")


def main(config: Config, world: World, checked: None) -> None:
    """All-reduce the rank's number `num_steps` times."""
    import torch
    import torch.distributed as dist

    with process_group(world, timeout=60):
        for step in range(1, config.train.num_steps + 1):
            stop = torch.tensor([float(world.stop_requested())])
            dist.all_reduce(stop, dist.ReduceOp.MAX)
            if stop.item():
                world.request_stop()
                world.check_stop()
            time.sleep(600 if world.rank == config.hanging else config.seconds)
            value = torch.tensor([float(config.numbers.read_text().splitlines()[world.rank])])
            dist.all_reduce(value)
            if world.rank == 0:
                row = {"step": step, "loss": value.item() / world.world_size, "steps_per_s": 32.0}
                append_metrics(config.out, row)
    if world.rank == 0:
        print(f"average {value.item() / world.world_size}")


if __name__ == "__main__":
    run(main, Config)
