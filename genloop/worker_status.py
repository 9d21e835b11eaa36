"""RUN/logs/WORKER.status.json: what a worker is doing, as `genloop status` reads it.

It is written anew every second; losing one is harmless, so it is not forced to the disk.
"""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from genloop.distributed import World
from genloop.records import Unit


@dataclass(frozen=True)
class WorkerStatus:
    """Writes the status of one worker; `staging` is a folder on the same file system for the temporary file."""

    run: Path
    world: World
    staging: Path
    started: float = field(default_factory=time.time)

    def write(
        self, state: str, *, unit: Unit | None = None, items: int = 0, items_in_unit: int = 0, units: int = 0
    ) -> None:
        """Say what it does now: its unit, and how many items, of that unit too, and units are done."""
        status = {
            "worker": self.world.name,
            "rank": self.world.rank,
            "world_size": self.world.world_size,
            "state": state,
            "unit": asdict(unit) if unit else None,
            "items": items,
            "items_in_unit": items_in_unit,
            "steps": self.world.steps,
            "units": units,
            "started": self.started,
            "updated": time.time(),
        }
        temporary = self.staging / f"status.{self.world.name}"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(status))
            try:
                temporary.replace(self.run / "logs" / f"{self.world.name}.status.json")
            finally:
                temporary.unlink(missing_ok=True)


def ending(error: BaseException | None) -> str:
    """The last state of a worker: finished, failed, or stopped by what is no failure."""
    return "failed" if isinstance(error, Exception) else "stopped" if error else "finished"
