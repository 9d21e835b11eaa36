"""`genloop status`, `logs` and `cancel`: look at a run, read what its workers say, stop it."""

import argparse
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from genloop import terminal
from genloop.failures import read_failures
from genloop.rundir import read_run
from launch.backends import slurm
from launch.backends.worker import log_file
from launch.commands import pipeline
from launch.pipelines.folder import is_pipeline
from launch.record import FILE, Launch, read_launch
from launch.watch.progress import watch
from launch.watch.status import lines, read_state

LINES = 20
WAITING = "waiting"  # in a queue, nothing has begun
_QUEUE_SECONDS = 10.0  # between two looks into the queue
_FOLLOW_SECONDS = 0.5


def status(options: argparse.Namespace) -> int:
    """Print the state of a run, once or until it is over -> exit code."""
    if is_pipeline(options.run):
        return _pipeline_status(options)
    run, launch = options.run, _submitted(options.run)
    begun = launch is None or read_run(run) is not None
    try:
        if options.watch:
            watch(run, lambda: _goes_on(run, launch), _QUEUE_SECONDS if launch else 1.0)
        state = read_state(run) if begun else None
        queue, trouble = _queue(run, launch)
    except KeyboardInterrupt:
        return 0
    if options.json:
        known = asdict(state) if state else {"run": str(run), "job": launch.job if launch else "", "state": WAITING}
        more = {"queue": [asdict(task) for task in queue], "scheduler": trouble} if launch else {}
        terminal.out_json(known | more)
    else:
        first = lines(state) if state else [f"{launch.job if launch else ''} {WAITING}"]
        tasks = [f"  {line}" for line in slurm.task_lines(queue)]
        terminal.out_lines([*first, *tasks, *([f"  {trouble}"] if trouble else [])])
    return 0


def _submitted(run: Path) -> Launch | None:
    """How a run was submitted; None for one that was started here, or otherwise."""
    if not (run / "logs" / FILE).exists():
        return None
    launch = read_launch(run)
    return launch if launch.backend != "local" else None


def _queue(run: Path, launch: Launch | None) -> tuple[list[slurm.Task], str]:
    """The tasks of a run in the queue of its scheduler, and why they are not known, if so."""
    if launch is None:
        return [], ""
    if launch.backend != "slurm":
        return [], f"written for {launch.backend}, whose own commands tell more"
    try:
        return slurm.tasks_of(launch.jobs, launch.plan(run)), ""
    except slurm.SlurmError as error:
        return [], str(error)


def _goes_on(run: Path, launch: Launch | None) -> bool:
    """Whether anything can still be expected: of the queue where a run is in one, of its folder elsewhere."""
    queue, trouble = _queue(run, launch)
    if launch and launch.backend == "slurm":
        return bool(trouble) or any(task.is_live for task in queue)
    return read_state(run).state in {"starting", "running"}


def _pipeline_status(options: argparse.Namespace) -> int:
    """The stages; with --watch again whenever one has changed, until all are done or nothing runs."""
    shown = ""
    with suppress(KeyboardInterrupt):
        while True:
            text = pipeline.status(options.run, as_json=options.json)
            if text != shown:
                terminal.out(text)
            shown = text
            if not options.watch or not _is_running(read_launch(options.run)):
                return 0
            time.sleep(_FOLLOW_SECONDS)
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print failures, then logs -> exit code; of a pipeline those of the stage that it is at."""
    if is_pipeline(options.run):
        options.run = pipeline.current_stage(options.run)
        terminal.out(f"== {options.run}")
    launch = _submitted(options.run)
    if read_run(options.run) is None and launch is None:
        raise ValueError(f"{options.run} is not a run folder (it has no run.json)")
    folder = options.run / "logs"
    if options.rank is not None and not log_file(folder, options.rank).is_file():
        raise ValueError(f"{options.run} has no log of worker {options.rank} (there are: {_ranks(folder) or 'none'})")
    failures = list(_failures(options.run)) or list(_script_failures(folder))
    if options.errors:
        terminal.out("\n".join(failures) if failures else "no failures")
        return 0
    terminal.out("\n".join([*failures, *_tails(folder, options.rank)]))
    try:
        if options.follow:
            _follow(options.run, options.rank, lambda: _goes_on(options.run, launch))
    except KeyboardInterrupt:
        pass
    return 0


def _failures(run: Path) -> Iterator[str]:
    """The cause with its traceback, then a line for each other failed worker and each failed unit."""
    failures = read_failures(run / "logs")
    for cause in failures[:1]:
        yield f"worker {cause.rank} failed: {cause.line}"
        yield cause.traceback.rstrip()
    yield from (f"worker {failure.rank} failed too: {failure.line}" for failure in failures[1:])
    if read_run(run) is not None:
        yield from (line.strip() for line in lines(read_state(run)) if line.startswith("  unit "))


def _script_failures(logs: Path) -> Iterator[str]:
    """The ends of scripts on a cluster that failed by themselves: bad input, a limit of the scheduler."""
    for file in sorted(logs.glob("slurm-*.log")):
        text = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if text and re.search(r"exit code (?!0$|75$)\d+$| error: ", text[-1]):
            yield from (f"{file.stem}: {line}" for line in text[-5:])


def _ranks(logs: Path) -> str:
    numbers = sorted(
        int(f.stem.removeprefix("worker-")) for f in logs.glob("worker-*.log") if f.stem[7:].isdecimal() and f.is_file()
    )
    return ", ".join(map(str, numbers))


def _files(logs: Path, rank: int | None) -> list[Path]:
    if rank is not None:
        return [log_file(logs, rank)]
    return [
        *sorted(logs.glob("slurm-*.log")),
        *(log_file(logs, int(rank)) for rank in _ranks(logs).split(", ") if rank),
    ]


def _tails(logs: Path, rank: int | None) -> Iterator[str]:
    for file in _files(logs, rank):
        text = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if rank is None:
            yield f"== {file.stem} (the last {min(LINES, len(text))} of {len(text)} lines)"
        yield from text if rank is not None else text[-LINES:]


def _follow(run: Path, rank: int | None, goes_on: Callable[[], bool]) -> None:
    """Print new lines, with the worker's rank in front where several are followed, while the run is running."""
    places = {file: file.stat().st_size for file in _files(run / "logs", rank)}
    while True:
        over = not goes_on()
        for file in _files(run / "logs", rank):
            with open(file, "rb") as stream:
                stream.seek(places.get(file, 0))
                whole, newline, _ = stream.read().rpartition(b"\n")
            places[file] = places.get(file, 0) + len(whole) + len(newline)
            for line in whole.decode("utf-8", "replace").splitlines():
                shown = line if rank is not None else f"{file.stem.removeprefix('worker-')}: {line}"
                over = not terminal.out(shown) or over
        if over:
            return
        time.sleep(_FOLLOW_SECONDS)


def cancel(options: argparse.Namespace) -> int:
    """Ask the launcher of a run, or the scheduler that has it, to stop -> exit code."""
    launch = read_launch(options.run)  # of a run or a pipeline
    if launch.backend != "local":
        return _cancel_in_queue(options.run, launch)
    if launch.host != socket.gethostname():
        raise ValueError(f"{options.run} was started on {launch.host}; cancel it there")
    if not _is_running(launch):
        terminal.err(f"{options.run} is not running")
        return 0
    os.kill(launch.pid, signal.SIGTERM)
    terminal.err(f"asked to stop; `genloop status {options.run}` tells when it has, `genloop resume` goes on")
    return 0


def _cancel_in_queue(run: Path, launch: Launch) -> int:
    if launch.backend != "slurm":
        raise ValueError(f"{run} was written for {launch.backend} and submitted by hand; cancel it there")
    if not any(task.is_live for task in slurm.tasks_of(launch.jobs, launch.plan(run))):
        terminal.err(f"{run} is not in the queue")
        return 0
    slurm.cancel(launch.jobs)
    terminal.err(f"cancelled; `genloop status {run}` tells when it has stopped, `genloop resume {run}` goes on")
    return 0


def _is_running(launch: Launch) -> bool:
    """Whether the process that wrote the record lives: its number may be another's by now."""
    try:
        started = Path(f"/proc/{launch.pid}").stat().st_ctime
    except OSError:
        return False
    return started <= launch.started + 1
