"""What a job can say before it runs: how much there is to do, and what a worker will hold. No torch.

A job module may have `work(config) -> Workload`, which reads its input alone and no checkpoint, and
`footprint(config, checked, *, device, ranks) -> Footprint`, which rehearses one step as a worker of `ranks` would do it
on `device` (cpu or cuda); `config.out` is then a folder that is thrown away.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genloop.distributed import gpu_peak
from genloop.reading import read_objects
from genloop.records import Unit
from genloop.rundir import append_line


@dataclass(frozen=True, slots=True)
class Workload:
    """Items that are cut into units, and the lines of input (what `limit` counts) that they come from."""

    items: int
    lines: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one worker: what it holds by part, the most it needs beside that, what the run leaves on disk."""

    parts: Mapping[str, int]
    working: int
    disk: Mapping[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """The most that is held at a time."""
        return sum(self.parts.values()) + self.working


UNIT_TIMES = (
    "units.jsonl"  # RUN/logs/WORKER.units.jsonl: unit, items, seconds, CPU-seconds, on a GPU most bytes of tensors
)
PLAN = "plan.json"  # RUN/logs/plan.json: what `genloop plan --keep` said


def record_unit(run: Path, worker: str, unit: Unit, seconds: float, cpu_seconds: float) -> None:
    """Add a row about a unit that is done; losing one is harmless."""
    took = {"seconds": round(seconds, 6), "cpu_seconds": round(cpu_seconds, 6)}
    row = {"unit": unit.name, "items": len(unit), **took, **gpu_peak()}
    with suppress(OSError):
        append_line(run / "logs" / f"{worker}.{UNIT_TIMES}", row)


def unit_times(run: Path) -> list[list[dict[str, Any]]]:
    """The rows of every worker about the units that it did; torn lines are left out."""
    files = sorted((run / "logs").glob(f"*.{UNIT_TIMES}"))
    found = ([row for row in read_objects(file) if "seconds" in row] for file in files)
    return [rows for rows in found if rows]
