"""`genloop status`, `logs` and `cancel`: look at a run, read what its workers say, stop it."""

import argparse
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from genloop import terminal
from genloop.failures import read_failures
from genloop.rundir import read_run
from launch.backends.worker import log_file
from launch.commands import pipeline
from launch.pipelines.folder import is_pipeline
from launch.record import Launch, read_launch
from launch.watch.progress import watch
from launch.watch.status import lines, read_state

LINES = 20
_FOLLOW_SECONDS = 0.5


def status(options: argparse.Namespace) -> int:
    """Print the state of a run, once or until it is over -> exit code."""
    if is_pipeline(options.run):
        return _pipeline_status(options)
    try:
        if options.watch:
            watch(options.run)
        state = read_state(options.run)
    except KeyboardInterrupt:
        return 0
    if options.json:
        terminal.out_json(asdict(state))
    else:
        terminal.out("\n".join(lines(state)))
    return 0


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
    if read_run(options.run) is None:
        raise ValueError(f"{options.run} is not a run folder (it has no run.json)")
    folder = options.run / "logs"
    if options.rank is not None and not log_file(folder, options.rank).is_file():
        raise ValueError(f"{options.run} has no log of worker {options.rank} (there are: {_ranks(folder) or 'none'})")
    failures = list(_failures(options.run))
    if options.errors:
        terminal.out("\n".join(failures) if failures else "no failures")
        return 0
    terminal.out("\n".join([*failures, *_tails(folder, options.rank)]))
    try:
        if options.follow:
            _follow(options.run, options.rank)
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
    yield from (line.strip() for line in lines(read_state(run)) if line.startswith("  unit "))


def _ranks(logs: Path) -> str:
    numbers = sorted(int(f.stem.removeprefix("worker-")) for f in logs.glob("worker-*.log") if f.stem[7:].isdecimal())
    return ", ".join(map(str, numbers))


def _files(logs: Path, rank: int | None) -> list[Path]:
    if rank is not None:
        return [log_file(logs, rank)]
    return [log_file(logs, int(number)) for number in _ranks(logs).split(", ") if number]


def _tails(logs: Path, rank: int | None) -> Iterator[str]:
    for file in _files(logs, rank):
        text = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if rank is None:
            yield f"== {file.stem} (the last {min(LINES, len(text))} of {len(text)} lines)"
        yield from text if rank is not None else text[-LINES:]


def _follow(run: Path, rank: int | None) -> None:
    """Print new lines, with the worker's rank in front where several are followed, while the run is running."""
    places = {file: file.stat().st_size for file in _files(run / "logs", rank)}
    while True:
        over = read_state(run).state not in {"starting", "running"}
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
    """Ask the launcher of a run to stop -> exit code."""
    launch = read_launch(options.run)  # of a run or a pipeline
    if launch.host != socket.gethostname():
        raise ValueError(f"{options.run} was started on {launch.host}; cancel it there")
    if not _is_running(launch):
        terminal.err(f"{options.run} is not running")
        return 0
    os.kill(launch.pid, signal.SIGTERM)
    terminal.err(f"asked to stop; `genloop status {options.run}` tells when it has, `genloop resume` goes on")
    return 0


def _is_running(launch: Launch) -> bool:
    """Whether the process that wrote the record lives: its number may be another's by now."""
    try:
        started = Path(f"/proc/{launch.pid}").stat().st_ctime
    except OSError:
        return False
    return started <= launch.started + 1
