"""The run folder of a training, whichever job: lines of metrics, alarms, what ended it, images of fixed prompts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genloop.config import read_yaml
from genloop.reading import read_object_or_empty, read_objects
from genloop.runs.lineage import job_of

TRAINS = "train_"  # how the names of training jobs begin


@dataclass(frozen=True, slots=True)
class PreviewLook:
    """The images of fixed prompts after a step, whole: their folder, prompts, and each measure (P,), None for none."""

    step: int
    folder: Path
    prompts: tuple[str, ...]
    measures: Mapping[str, Sequence[float | None]]

    def image(self, place: int) -> Path:
        """The file of a prompt's image."""
        return self.folder / f"{place:04d}.png"


@dataclass(frozen=True)
class Training:
    """One training, as far as it is."""

    folder: Path
    job: str
    total: int  # steps of the whole run
    rows: tuple[Mapping[str, Any], ...]  # of metrics.jsonl, in order
    alarms: tuple[Mapping[str, Any], ...]  # step, alarm, text
    stopped: Mapping[str, Any]  # step, action, alarms; empty unless an alarm ended it
    best: int | None  # the step of the best checkpoint
    looks: tuple[PreviewLook, ...]
    level: float = 0.99  # of the intervals of changes since step 0
    is_guarded: bool = False  # whether its job can draw fixed prompts on the way

    @cached_property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Each number of metrics.jsonl: its steps and values, those that are no numbers left out."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row in self.rows:
            for key, value in row.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if key != "step" and is_number and math.isfinite(value):
                    found.setdefault(key, []).append((row["step"], float(value)))
        return found

    @property
    def done(self) -> int:
        """The last step that a line tells of."""
        return max((row["step"] for row in self.rows), default=0)

    def last(self, key: str) -> float | None:
        """The newest value of a number; None where there is none."""
        return self.series[key][-1][1] if key in self.series else None


def is_training(folder: Path) -> bool:
    """Whether a folder is the run of a training job."""
    return job_of(folder).startswith(TRAINS)


def read_training(folder: Path) -> Training:
    """Read the run folder of a training; ValueError when it is none or has done nothing yet."""
    if not is_training(folder):
        raise ValueError(f"{folder} is not the run folder of a training")
    rows = tuple(row for row in read_objects(folder / "metrics.jsonl") if type(row.get("step")) is int)
    if not rows:
        raise ValueError(f"{folder} has no line of metrics yet, there is nothing to report")
    config = read_yaml(folder / "config.yaml")
    train, guards = (group if isinstance(group := config.get(key), dict) else {} for key in ("train", "guards"))
    best = read_object_or_empty(folder / "checkpoints" / "best.json").get("step")
    return Training(
        folder=folder,
        job=job_of(folder),
        total=int(train.get("num_steps", 0)),
        rows=rows,
        alarms=tuple(row for row in read_objects(folder / "alarms.jsonl") if type(row.get("step")) is int),
        stopped=read_object_or_empty(folder / "stopped.json"),
        best=best if type(best) is int else None,
        looks=tuple(_looks(folder)),
        level=float(guards.get("level", Training.level)),
        is_guarded="prompts" in guards,
    )


def _looks(folder: Path) -> Iterator[PreviewLook]:
    for path in sorted((folder / "previews").glob("step-*/scores.json")):
        found = read_object_or_empty(path)
        prompts, measures = found.get("prompts"), found.get("measures")
        if type(found.get("step")) is int and isinstance(prompts, list) and isinstance(measures, dict):
            yield PreviewLook(found["step"], path.parent, tuple(map(str, prompts)), measures)
