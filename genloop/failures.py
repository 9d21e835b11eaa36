"""What a worker leaves behind when it fails, RUN/logs/worker-RANK.error.json, and which of several is the cause.

A rank whose peer has died fails too, with a lost connection or a time-out, often before the peer's own error is known.
The cause is the earliest failure that is no such echo.
"""

import contextlib
import re
import time
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from genloop.distributed import World
from genloop.lease import read_object
from genloop.redaction import redact
from genloop.rundir import json_bytes, write_atomic, write_json

ECHO = re.compile(r"connection|timed? ?out|closed by peer|broken pipe|gloo|nccl|reset by peer", re.I)
_SUFFIX = ".error.json"


@dataclass(frozen=True)
class WorkerFailure:
    """One failed worker: when, what, and where in the work (`notes`: unit, prompt, step)."""

    rank: int
    time: float  # seconds since the epoch, of the worker's clock
    kind: str
    message: str
    notes: list[str]
    traceback: str

    @property
    def is_echo(self) -> bool:
        """Whether it only tells of another worker's end."""
        return bool(ECHO.search(f"{self.kind} {self.message}"))

    @property
    def line(self) -> str:
        """One line for a person."""
        where = "; ".join(self.notes)
        return f"{self.kind}: {' '.join(self.message.split())}" + (f" [{where}]" if where else "")


def record_failure(run: Path, world: World, error: BaseException) -> None:
    """Leave the failure of this worker in the run folder; nothing happens where that cannot be written."""
    text = "".join(traceback.format_exception(error))
    notes = list(getattr(error, "__notes__", []))
    found = WorkerFailure(world.rank, time.time(), type(error).__name__, str(error), notes, text)
    with contextlib.suppress(OSError):
        write_atomic(failure_file(run / "logs", world.rank), json_bytes(redact(asdict(found))))


def record_attempt(path: Path, world: World, error: Exception) -> int:
    """Write RUN/failed/UNIT.json -> how often the unit has failed by now; OSError where that cannot be written."""
    attempts = 1 + attempts_of(path)
    trace = "".join(traceback.format_exception(error))
    reason = f"{type(error).__name__}: {error}"
    record = {"attempts": attempts, "worker": world.name, "reason": reason, "traceback": trace}
    write_json(path, redact(record))
    return attempts


def attempts_of(path: Path) -> int:
    """How often a unit has failed; 0 without a record, or with one that a crash has torn."""
    try:
        attempts = read_object(path).get("attempts", 0)
    except FileNotFoundError:
        return 0
    return attempts if type(attempts) is int else 0


def failure_file(logs: Path, rank: int) -> Path:
    """Where the failure of a rank is kept, until its next start."""
    return logs / f"worker-{rank}{_SUFFIX}"


def read_failures(logs: Path, since: float = 0.0) -> list[WorkerFailure]:
    """All failures in a folder of logs that are not older than `since`, the cause first, then by time."""
    found = []
    for path in logs.glob(f"worker-*{_SUFFIX}"):
        with contextlib.suppress(OSError, TypeError):  # removed meanwhile, or of another version
            found.append(WorkerFailure(**read_object(path)))
    return by_cause(failure for failure in found if failure.time >= since)


def by_cause(failures: Iterable[WorkerFailure]) -> list[WorkerFailure]:
    """The earliest that is no echo first, then the others as they came."""
    return sorted(failures, key=lambda failure: (failure.is_echo, failure.time, failure.rank))
