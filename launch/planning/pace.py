"""Seconds of an item or a training step: from an earlier run of the same job, or from a few that are really done."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from genloop.config import computing_keys, words_of
from genloop.environment import imports_alike
from genloop.job import job_name
from genloop.planning import Workload, unit_times
from genloop.reading import read_objects
from genloop.registry import load
from genloop.rundir import read_run
from launch.record import read_launch

if TYPE_CHECKING:
    from types import ModuleType

    from genloop.config import JobConfig

_STATISTICS = "genloop.stats.pace:pace_of"
_NAMED = 4  # keys in one line


@dataclass(frozen=True)
class Pace:
    """Seconds of one worker for an item, or of all for a step; bounds are NaN where one measurement is all there is."""

    seconds: float
    low: float
    high: float
    basis: str  # what it was measured on
    peak: int | None = None  # bytes of a GPU, where they were recorded


def pace_like(run: Path, module: "ModuleType", config: "JobConfig", ranks: int) -> Pace:
    """Of an earlier run; ValueError where it is of another job, or has finished nothing."""
    found = read_run(run)
    if found is None:
        raise ValueError(f"--like: {run} is not a run folder (it has no run.json)")
    if found["job"] != job_name(module):
        raise ValueError(f"--like: {run} is a run of {found['job']}, not of {job_name(module)}")
    before, now = found.get("keys", {}), computing_keys(config)
    other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    other = [key for key in other if key not in {"seed", "limit", "unit_size", "train.num_steps", "train.log_every"}]
    shown = ", ".join(other[:_NAMED]) + (", ..." if other[_NAMED:] else "")
    pace = pace_of_run(run, f"{run}" + (f", which differs in {shown}" if other else ""))
    if module.KIND != "collective":
        return pace
    share = read_launch(run).procs / ranks  # a step is divided among ranks
    return Pace(pace.seconds * share, pace.low * share, pace.high * share, pace.basis, pace.peak)


def pace_of_run(run: Path, name: str) -> Pace:
    """Of what a run has finished; ValueError when that is nothing."""
    spans = list(_spans(run))
    if not spans:
        raise ValueError(f"{run} has finished no unit and no step that was timed")
    counts, seconds, peaks = zip(*spans)
    estimate, low, high = load(_STATISTICS)(counts, seconds)
    return Pace(
        estimate, low, high, f"{len(spans)} {'span' if len(spans) == 1 else 'spans'} of {name}", max(peaks) or None
    )


def calibrate(number: int, module: "ModuleType", words: Sequence[str], work: Workload | None, unit_size: int) -> Pace:
    """Of `number` units or steps, really done by one worker in a folder that is thrown away."""
    more = ["train.log_every=1", f"train.num_steps={number}", f"train.save_every={number}"]
    if work is not None:
        more = [f"limit={max(1, min(work.lines, math.ceil(number * unit_size * work.lines / max(1, work.items))))}"]
    elif module.KIND != "collective":
        raise ValueError(f"--calibrate: {job_name(module)} has no units that can be tried alone; use --like RUN")
    with tempfile.TemporaryDirectory(prefix="genloop-plan-") as folder:
        more += words_of({"out": f"{folder}/run"})
        command = [sys.executable, "-m", "launch", "run", module.__name__, *words, *more]
        variables = {**os.environ, **imports_alike()}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ValueError(f"--calibrate: the trial failed: {last.removeprefix('genloop: ')}")
        return pace_of_run(Path(folder) / "run", "a trial")


def _spans(run: Path) -> Iterator[tuple[float, float, int]]:
    """(items, seconds, bytes) of units, or of the steps between two lines of metrics."""
    units = [row for rows in unit_times(run) for row in rows]
    if units:
        yield from ((row["items"], row["seconds"], row.get("peak_bytes", 0)) for row in units)
        return
    steps = [row for row in read_objects(run / "metrics.jsonl") if "steps_per_s" in row]
    if len(steps) == 1:
        yield 1, 1 / steps[0]["steps_per_s"], steps[0].get("peak_bytes", 0)
    for before, row in pairwise(steps):  # the first ones warm up
        count = row["step"] - before["step"]
        if count > 0:
            yield count, count / row["steps_per_s"], row.get("peak_bytes", 0)
