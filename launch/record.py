"""RUN/logs/launch.json: how a run was started last, for `resume`, `cancel` and `logs`."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genloop.config import words_of
from genloop.lease import read_object
from genloop.redaction import redact
from genloop.rundir import json_bytes, write_atomic

FILE = "launch.json"
PLAN = "GENLOOP_PLAN"  # set in every submitted job: its plan folder, RUN/logs/submit-N


@dataclass(frozen=True)
class Launch:
    """One start of a run. `backend` is local, or the scheduler that it was submitted to and that knows it as `jobs`."""

    job: str  # a job's name, or its dotted module path
    procs: int
    nodes: int = 1
    backend: str = "local"
    cluster: str = ""  # the cluster file of a submitted run
    jobs: tuple[str, ...] = ()
    folder: str = field(default_factory=lambda: str(Path.cwd()))  # where relative paths of its config begin
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.time)
    options: dict[str, Any] = field(default_factory=dict)  # what else it was submitted with: plan, cluster settings

    def plan(self, run: Path) -> Path:
        """The plan folder of a submitted run."""
        return run / "logs" / str(self.options.get("plan", ""))


def write_launch(run: Path, launch: Launch) -> None:
    """Keep it in the run folder, without secrets."""
    (run / "logs").mkdir(parents=True, exist_ok=True)
    write_atomic(run / "logs" / FILE, json_bytes(redact(asdict(launch))))


def read_launch(run: Path) -> Launch:
    """How RUN was started last; ValueError where nothing says so."""
    try:
        return TypeAdapter(Launch).validate_python(read_object(run / "logs" / FILE))
    except (OSError, ValidationError):
        raise ValueError(f"{run} was not started by `genloop run` or `genloop submit` ({FILE} is missing)") from None


def words_to_resume(run: Path, launch: Launch, words: Sequence[str] = ()) -> list[str]:
    """JOB PRESET key=value ... that mean the run as it was started: its own config, in its own folder."""
    config = run.absolute() / "config.yaml"
    if not config.exists() and launch.backend != "local":  # it has waited for another run and not begun
        config = launch.plan(run.absolute()) / "config.yaml"
    return [launch.job, str(config), *words_of({"out": str(run.absolute())}), *words]
