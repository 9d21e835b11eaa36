"""The lines of metrics.jsonl: means since the last one and the speed, what was found after a step; and who reads them.

Rank 0 writes. A guard sees every line, and sinks follow the file.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.distributed import World, gpu_peak
from genloop.rundir import append_metrics
from genloop.training.session import check_lock
from genloop.training.settings import LoopSettings
from genloop.training.sinks import Followers
from genloop.training.state import Progress
from genloop.training.task import Watch


class Lines:
    """Writes metrics.jsonl of one training."""

    def __init__(
        self, run: Path, settings: LoopSettings, world: World, progress: Progress, guard: Watch | None
    ) -> None:
        self._run, self._settings, self._world, self._progress, self._guard = run, settings, world, progress, guard
        self._time, self._step = time.monotonic(), progress.step
        self._sinks = Followers(settings.sinks if world.rank == 0 else (), run)
        world.at_step(progress.step)
        self._cpu_seconds = 0.0  # all of this process: what came before the first step counts too

    def log(self, lr: float, grad_norm: float, num_items: int) -> bool:
        """Write a line about the steps since the last one, when it is due -> whether it was."""
        progress, step = self._progress, self._progress.step
        self._world.at_step(step)
        if step != self._settings.num_steps and step % self._settings.log_every:
            return False
        now, cpu = time.monotonic(), time.process_time()
        speed = (step - self._step) / (now - self._time)
        pace = {"steps_per_s": speed, "samples_per_s": num_items * speed}
        norm = {"grad_norm": grad_norm} if math.isfinite(grad_norm) else {}
        took = {"cpu_seconds": (cpu - self._cpu_seconds) * self._world.world_size}  # ranks take alike
        self.add({"step": step, **progress.mean(), "lr": lr, **norm, **pace, **took, **gpu_peak()})
        self._time, self._step, self._cpu_seconds = now, step, cpu
        progress.clear()
        return True

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line; on the other ranks nothing happens."""
        if self._world.rank == 0:
            check_lock(self._run)
            append_metrics(self._run, line)
            if self._guard is not None:
                self._guard.watch(line)
            self._sinks.follow()

    def close(self) -> None:
        """No more lines will come."""
        self._sinks.close()
