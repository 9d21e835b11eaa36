"""The folder of a pipeline: pipeline.json says which stage is where, done/ADDRESS.json that it came to its end."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.reading import read_object_or_empty
from genloop.redaction import redact
from genloop.rundir import write_json
from launch.pipelines.stages import Stage
from launch.record import FILE as LAUNCH
from launch.record import read_launch
from launch.watch.status import RunState, read_state, totals

FILE = "pipeline.json"


@dataclass(frozen=True)
class StageState:
    """How far one stage is: waiting, or as its run; `done` when its command came to its end."""

    name: str
    job: str
    run: Path
    state: str
    line: str


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is that of a pipeline, not of a run."""
    return (folder / FILE).is_file()


def read_folders(out: Path) -> dict[str, str]:
    """{address: folder} of all stages that were ever planned here."""
    folders = read_object_or_empty(out / FILE).get("folders", {})
    return {str(address): str(folder) for address, folder in folders.items()} if isinstance(folders, dict) else {}


def write_plan(out: Path, name: str, stages: Sequence[Stage], settings: Mapping[str, Any]) -> None:
    """Keep the stages, the places of all that were planned before, and the resolved file."""
    folders = read_folders(out) | {stage.address: stage.folder.name for stage in stages}
    rows = [
        {"name": stage.name, "job": stage.job, "address": stage.address, "needs": list(stage.needs)} for stage in stages
    ]
    (out / "done").mkdir(parents=True, exist_ok=True)
    write_json(out / FILE, {"name": name, "stages": rows, "folders": folders, "settings": redact(settings)})


def is_done(out: Path, stage: Stage) -> bool:
    """Whether its command, or the cluster's job, has come to its end, and what it wrote is still there."""
    if not stage.folder.is_dir():
        return False
    return (out / "done" / f"{stage.address}.json").is_file() or _has_ended_on_a_cluster(stage.folder)


def mark_done(out: Path, stage: Stage, seconds: float) -> None:
    """Leave the marker of a stage that has come to its end."""
    write_json(out / "done" / f"{stage.address}.json", {"stage": stage.name, "seconds": seconds, "time": time.time()})


def stage_states(out: Path) -> list[StageState]:
    """Every stage of the last plan, in its order; ValueError when the folder is that of no pipeline."""
    plan, folders = read_object_or_empty(out / FILE), read_folders(out)
    rows = plan.get("stages")
    if not isinstance(rows, list) or not all(_is_row(row, folders) for row in rows):
        raise ValueError(f"{out / FILE} is damaged; run the pipeline again")
    return [_state(out, row, out / folders[row["address"]]) for row in rows]


def _is_row(row: Any, folders: Mapping[str, str]) -> bool:
    is_text = isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("name", "job", "address"))
    return is_text and row["address"] in folders


def _has_ended_on_a_cluster(run: Path) -> bool:
    if not (run / "logs" / LAUNCH).is_file() or read_launch(run).backend == "local":
        return False
    return (run / "run.json").is_file() and read_state(run).state == "done"


def _state(out: Path, row: Mapping[str, Any], run: Path) -> StageState:
    seen: RunState | None = read_state(run) if (run / "run.json").is_file() else None
    state = "waiting" if seen is None else "stopped" if seen.state == "done" else seen.state
    if (out / "done" / f"{row['address']}.json").is_file() or _has_ended_on_a_cluster(run):
        state = "done"
    line = totals(seen).partition(" ")[2].partition(", ")[2] if seen else ""
    return StageState(row["name"], row["job"], run, state, line)
