"""Plan against fact: what `genloop plan --keep` said about the runs of a page, beside what they took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genloop.ledger import finished
from genloop.planning import PLAN, unit_times
from genloop.reading import read_object_or_empty
from genloop.report.runs import ReportedRun

UNKNOWN = "not recorded"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """(name, planned, fact) rows of one run, as they are shown."""

    name: str
    rows: tuple[tuple[str, str, str], ...]


def plans(runs: Sequence[ReportedRun]) -> list[PlannedRun]:
    """Of every evaluation, and of the run that made its images, that has a plan."""
    folders = dict.fromkeys(folder for run in runs for folder in (run.folder, run.generate) if folder is not None)
    return [found for found in map(_planned, folders) if found.rows]


def _planned(run: Path) -> PlannedRun:
    plan, times = read_object_or_empty(run / "logs" / PLAN), unit_times(run)
    if not plan:
        return PlannedRun(run.name, ())
    seconds, footprint = plan.get("seconds") or {}, plan.get("footprint") or {}
    took = sum(row["seconds"] for rows in times for row in rows) / len(times) if times else None
    peaks = [row["peak_bytes"] for rows in times for row in rows if "peak_bytes" in row]
    rows = (
        ("units", _number(plan.get("units")), _number(len(finished(run)))),
        ("workers", _number(plan.get("workers")), _number(len(times) or None)),
        ("seconds of a worker in units", _time(seconds), UNKNOWN if took is None else f"{took:.3g}"),
        ("memory of a worker, MiB", _mebibytes(footprint.get("peak")), _mebibytes(max(peaks, default=None))),
    )
    return PlannedRun(run.name, rows)


def _time(seconds: dict[str, float | None]) -> str:
    if not seconds.get("seconds"):
        return "not calibrated"
    low, high = seconds.get("low"), seconds.get("high")
    return f"{seconds['seconds']:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None and high is not None else "")


def _number(count: int | None) -> str:
    return UNKNOWN if count is None else str(count)


def _mebibytes(count: int | None) -> str:
    return UNKNOWN if count is None else f"{count / 2**20:.1f}"
