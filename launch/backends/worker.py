"""What the launcher starts: `python -m launch.backends.worker LOGS MODULE [WORD ...]` runs a job, its output in LOGS.

Standard error goes to LOGS/worker-RANK.log, standard output to LOGS/worker-RANK.out; the process does not outlive
the one that started it. LOGS/worker-RANK.beat is there while the worker lives: it holds its process id, and its time is
that of the last safe point. SIGUSR1 writes the stacks of all threads to the log.
"""

import faulthandler
import importlib
import os
import signal
import sys
from pathlib import Path

from genloop.distributed import BEAT, end_with_parent
from genloop.job import run_command


def main() -> None:
    """Redirect, tie this process to its parent, and run the job."""
    folder, module, *words = sys.argv[1:]
    rank = int(os.environ["RANK"])
    _redirect(sys.stderr.fileno(), log_file(Path(folder), rank))
    _redirect(sys.stdout.fileno(), output_file(Path(folder), rank))
    end_with_parent(signal.SIGKILL)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    beat = beat_file(Path(folder), rank).absolute()
    beat.write_text(str(os.getpid()))
    os.environ[BEAT] = str(beat)
    try:
        sys.exit(run_command(importlib.import_module(module), words))
    finally:
        beat.unlink(missing_ok=True)  # one that has ended does not hang


def log_file(folder: Path, rank: int) -> Path:
    """Where a worker's standard error goes."""
    return folder / f"worker-{rank}.log"


def output_file(folder: Path, rank: int) -> Path:
    """Where a worker's standard output goes until the launcher prints it."""
    return folder / f"worker-{rank}.out"


def beat_file(folder: Path, rank: int) -> Path:
    """The file that a worker touches when it reaches a safe point."""
    return folder / f"worker-{rank}.beat"


def _redirect(descriptor: int, path: Path) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, descriptor)
    os.close(target)


if __name__ == "__main__":
    main()
