"""What a run was made from: the runs whose folders its config names, those that these name, and what all of them took.

A checkpoint, pairs or prompts lie inside the run that made them, so a config that names them names that run. Shipped and
downloaded files lie in no run, and cost nothing here.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from genloop import rundir
from genloop.config import read_yaml
from genloop.planning import unit_times
from genloop.reading import read_objects

_LEVELS = 4  # folders between what a config names and the run around it


def locate(path: Path, run: Path) -> Path:
    """A path of a run's config; a relative one was most likely meant from a folder above the run."""
    places = [*(above / path for above in run.resolve().parents), path]
    return next((place for place in places if _exists(place)), path)


def made_from(run: Path) -> list[Path]:
    """The folders of all runs that had a part in what a run read, the nearest first, without the run itself."""
    found: dict[Path, None] = {}
    left = [run]
    while left:
        here = left.pop(0)
        for source in _named(here):
            if source.resolve() not in {run.resolve(), *found}:
                found[source.resolve()] = None
                left.append(source)
    return list(found)


def job_of(run: Path) -> str:
    """The job of a run folder; "" when it has no run.json."""
    return str((rundir.read_run(run) or {}).get("job", ""))


def cpu_seconds(run: Path) -> float | None:
    """What its workers took, as units or lines of metrics tell it; None when nothing was noted."""
    rows = [row for rows in unit_times(run) for row in rows] or list(read_objects(run / "metrics.jsonl"))
    noted = [float(row["cpu_seconds"]) for row in rows if isinstance(row.get("cpu_seconds"), int | float)]
    return sum(noted) if noted else None


def _named(run: Path) -> Iterator[Path]:
    """The runs around the files and folders that a config names."""
    config = run / "config.yaml"
    for text in _texts(read_yaml(config)) if config.is_file() else ():
        place = locate(Path(text), run)
        around = [place, *place.resolve().parents][: _LEVELS + 1] if _exists(place) else []
        yield from [folder for folder in around if folder.is_dir() and (folder / "run.json").is_file()][:1]


def _exists(place: Path) -> bool:
    """Of what may be no path at all: a prompt or a question may be longer than any file name."""
    with suppress(OSError):
        return place.exists()
    return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif isinstance(value, str) and value and "\n" not in value and len(value) < 4096:
        yield value
