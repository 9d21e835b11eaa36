"""The state of a run, read from its folder alone: units done, rate, time left, failures, and what each worker does."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop import ledger
from genloop.config import read_yaml
from genloop.reading import object_or_empty, read_bytes, read_object_or_empty
from genloop.rundir import read_run

SILENT_AFTER = 15.0  # seconds without a sign of life after which a worker counts as lost
STEPS_SILENT_AFTER = 120.0  # the same for a training job, which writes to metrics.jsonl now and then
OVER = {"finished", "stopped", "failed"}


@dataclass(frozen=True)
class WorkerState:
    """One worker as it last described itself; `state` is "lost" when it went silent."""

    name: str
    rank: int
    state: str
    unit: str | None
    items: int
    items_in_unit: int  # of the unit that it works on
    units: int
    rate: float  # items a second
    silent: float  # seconds since its last sign of life
    work_steps: int = 0  # within units, of a job that counts them

    @property
    def alive(self) -> bool:
        return self.state not in {*OVER, "lost"}


@dataclass(frozen=True)
class Failure:
    """A unit that gave up."""

    unit: str
    attempts: int
    reason: str


@dataclass(frozen=True)
class Steps:
    """How far a training job is: what rank 0 says, and the last line of metrics.jsonl."""

    done: int
    total: int
    loss: float | None  # of that line; None before the first
    rate: float  # steps a second
    silent: float  # seconds since the last sign of life


@dataclass(frozen=True)
class AlarmState:
    """All alarms of one kind that the guard of a training has raised: RUN/alarms.jsonl."""

    kind: str
    times: int
    first_step: int
    last_step: int
    text: str  # of the last one


@dataclass(frozen=True)
class RunState:
    """One look at a run. Items are what its workers count: images, rows, files."""

    run: str
    job: str
    state: str  # starting, running, done, failed, stopped
    units: int
    units_done: int
    units_failed: int
    items: int
    items_done: int
    rate: float
    seconds_left: float | None
    steps: Steps | None  # of a training job
    workers: tuple[WorkerState, ...]
    failures: tuple[Failure, ...]
    alarms: tuple[AlarmState, ...] = ()
    stopped: str = ""  # how an alarm has ended a training early


def read_state(run: Path) -> RunState:
    """Look at a run folder; ValueError when it is none."""
    fingerprint = read_run(run)
    if fingerprint is None:
        raise ValueError(f"{run} is not a run folder (it has no run.json)")
    config, plan = read_yaml(run / "config.yaml"), read_object_or_empty(run / "plan.json")
    workers = tuple(_workers(run))
    units, items = plan.get("units", 0), plan.get("items", 0)
    done, failed = _settled(run)
    steps = _steps(run, config.get("train", {}), workers)
    over = (run / "done.json").exists()
    ended = read_object_or_empty(run / "stopped.json")
    state = (
        "done"
        if over
        else "failed"
        if ended.get("action") == "fail"
        else _state(units, len(done), len(failed), workers, steps)
    )
    alive = [worker for worker in workers if worker.alive] if state == "running" else []
    items_done = _items_of(done, plan) + sum(worker.items_in_unit for worker in alive)
    rate = sum(worker.rate for worker in alive)
    left = items - items_done - _items_of(failed, plan)
    if steps and state == "running":
        rate, left = steps.rate, steps.total - steps.done
    return RunState(
        run=str(run),
        job=fingerprint["job"],
        state=state,
        units=units,
        units_done=len(done),
        units_failed=len(failed),
        items=items,
        items_done=items_done,
        rate=rate,
        seconds_left=left / rate if rate and left > 0 else None,
        steps=steps,
        workers=workers,
        failures=tuple(_failures(run, failed)),
        alarms=tuple(_alarms(run)),
        stopped=_stopped(ended),
    )


def lines(state: RunState) -> list[str]:
    """A run as plain text: one line of totals, one a worker, one a kind of alarm, one a failure."""
    workers = [_worker_line(worker, bool(state.steps)) for worker in state.workers]
    failures = [f"  unit {f.unit} failed (attempt {f.attempts}): {f.reason}" for f in state.failures]
    alarms = [f"  {alarm_line(alarm)}" for alarm in state.alarms] + ([f"  {state.stopped}"] if state.stopped else [])
    hidden = state.units_failed - len(state.failures)
    return [totals(state), *workers, *alarms, *failures, *([f"  and {hidden} more failed units"] if hidden > 0 else [])]


def _worker_line(worker: WorkerState, is_training: bool) -> str:
    work = [] if is_training else [f"{worker.items} items", f"{worker.rate:.2g} items/s"]
    work += [f"{worker.work_steps} steps"] if worker.work_steps else []
    work += [f"silent for {duration(worker.silent)}"] if worker.state == "lost" else []
    unit = f" on unit {worker.unit}" if worker.unit else ""
    return "  " + ", ".join([f"worker {worker.rank}: {worker.state}{unit}", *work])


def alarm_line(alarm: AlarmState) -> str:
    """One kind of alarm: when, how often, and what was seen last."""
    steps = f"step {alarm.first_step}"
    if alarm.last_step > alarm.first_step:
        steps = f"steps {alarm.first_step} to {alarm.last_step}, {alarm.times} times"
    return f"alarm {alarm.kind.replace('_', ' ')} ({steps}): {alarm.text}"


def totals(state: RunState) -> str:
    """The run in one line."""
    parts = [f"{state.job} {state.state}"]
    if state.units:
        share = 100 * state.units_done // state.units
        parts += [f"{state.units_done}/{state.units} units ({share} %)", f"{state.items_done}/{state.items} items"]
    work = sum(worker.work_steps for worker in state.workers if worker.alive)
    if state.state == "running" and work and not state.steps:
        parts.append(f"{work} steps")
    if state.steps:
        parts.append(f"step {state.steps.done}/{state.steps.total}")
        parts += [f"loss {state.steps.loss:.4g}"] if state.steps.loss is not None else []
    if state.rate:
        parts.append(f"{state.rate:.3g} {'steps' if state.steps else 'items'}/s")
    if state.seconds_left is not None:
        parts.append(f"{duration(state.seconds_left)} left")
    if state.units_failed:
        parts.append(f"{state.units_failed} failed")
    if state.alarms:
        parts.append(f"{len(state.alarms)} kind{'' if len(state.alarms) == 1 else 's'} of alarm")
    if state.stopped:
        parts.append("stopped early")
    if state.state == "running" and state.workers and not state.steps:
        alive = sum(worker.alive for worker in state.workers)
        parts.append(f"{alive} worker{'' if alive == 1 else 's'}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """3725 -> 1h02m, 125 -> 2m05s, 7 -> 7s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def _state(units: int, done: int, failed: int, workers: Sequence[WorkerState], steps: Steps | None) -> str:
    is_alive = any(worker.alive for worker in workers)
    if (units and done == units) or (steps and steps.done == steps.total and not is_alive):
        return "done"
    if is_alive or (steps and not workers and steps.silent < STEPS_SILENT_AFTER):
        return "running"
    if failed or any(worker.state == "failed" for worker in workers):
        return "failed"
    return "stopped" if workers or steps else "starting"


def _settled(run: Path) -> tuple[set[str], set[str]]:
    done = ledger.finished(run)
    return done, {path.stem for path in (run / "failed").glob("*.json") if not path.name.startswith(".")} - done


def _items_of(units: set[str], plan: Mapping[str, Any]) -> int:
    """How many items these units hold; plan["sizes"] counts units of equal size: [[number of units, items], ...]"""
    numbers, total, start = sorted(map(int, units)), 0, 0
    for count, size in plan.get("sizes", ()):
        total += size * (bisect_left(numbers, start + count) - bisect_left(numbers, start))
        start += count
    return total


def _workers(run: Path) -> Iterator[WorkerState]:
    """The workers of the last start and all that still live, by rank."""
    now = time.time()
    found = [read_object_or_empty(path) for path in (run / "logs").glob("*.status.json")]
    found = [status for status in found if "updated" in status]
    fresh = [s for s in found if s["state"] not in OVER and now - s["updated"] < SILENT_AFTER]
    since = min([_last_start(run), *(s["started"] for s in fresh)])
    for status in sorted(found, key=lambda status: (status["rank"], status["started"])):
        if status["started"] < since - 1:
            continue
        silent = max(0.0, now - status["updated"])
        over = status["state"] in OVER
        yield WorkerState(
            name=status["worker"],
            rank=status["rank"],
            state=status["state"] if over or silent < SILENT_AFTER else "lost",
            unit=status["unit"]["name"] if status["unit"] else None,
            items=status["items"],
            items_in_unit=status.get("items_in_unit", 0) if status["unit"] else 0,
            units=status["units"],
            rate=status["items"] / max(status["updated"] - status["started"], 1e-3),
            silent=silent,
            work_steps=status.get("steps", 0),
        )


def _last_start(run: Path) -> float:
    try:
        return (run / "logs" / "starts.jsonl").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _failures(run: Path, names: set[str], *, limit: int = 5) -> Iterator[Failure]:
    for name in sorted(names, key=int)[:limit]:
        record = read_object_or_empty(run / "failed" / f"{name}.json")
        yield Failure(name, record.get("attempts", 1), " ".join(record.get("reason", "reason lost").split()))


def _steps(run: Path, settings: Mapping[str, Any], workers: Sequence[WorkerState]) -> Steps | None:
    """Of a job that counts steps: from the status of rank 0, and the last whole line of metrics.jsonl with a loss."""
    if "num_steps" not in settings:
        return None
    path = run / "metrics.jsonl"
    row = _last_loss(path) if path.is_file() else {}
    speaker = next((worker for worker in workers if worker.rank == 0), None)
    if not row and speaker is None:
        return None
    silent = [time.time() - path.stat().st_mtime] if row else []
    done = [row.get("step", 0)]
    if speaker is not None and (speaker.alive or speaker.silent < SILENT_AFTER):
        silent, done = [*silent, speaker.silent], [*done, speaker.work_steps]
    elif not row:
        silent = [STEPS_SILENT_AFTER]
    rate = row.get("steps_per_s", 0.0)
    return Steps(max(done), settings["num_steps"], row.get("loss"), rate, max(0.0, min(silent)))


def _last_loss(path: Path) -> dict[str, Any]:
    """The last whole line that has a loss, and so is not about what was measured on held-out data; {} without one."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")[1 if file.tell() > 4096 else 0 : -1]  # whole ones
    rows = [row for row in map(object_or_empty, lines) if "loss" in row]
    return rows[-1] if rows else {}


def _alarms(run: Path) -> Iterator[AlarmState]:
    """By kind, in order of first appearance; lines that are torn are left out."""
    rows: dict[str, list[dict[str, Any]]] = {}
    path = run / "alarms.jsonl"
    for row in map(object_or_empty, read_bytes(path).split(b"\n") if path.is_file() else ()):
        if isinstance(row.get("alarm"), str) and type(row.get("step")) is int:
            rows.setdefault(row["alarm"], []).append(row)
    for kind, found in rows.items():
        steps = [row["step"] for row in found]
        yield AlarmState(kind, len(found), min(steps), max(steps), str(found[-1].get("text", "")))


def _stopped(found: Mapping[str, Any]) -> str:
    if type(found.get("step")) is not int:
        return ""
    done = "rolled back to the best checkpoint" if found.get("action") == "rollback" else "failed"
    return f"an alarm ended it at step {found['step']}: {done}; guards.on_alarm=report goes on from there"
