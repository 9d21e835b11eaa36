"""A run of `metrics` that compared pairs, as the report reads it again: what was measured, and its rows."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from genloop.config import read_yaml
from genloop.ledger import read_rows
from genloop.metrics.makers import Metrics
from genloop.metrics.measurement import Measurement
from genloop.report.images.write import write_comparison
from genloop.rundir import read_run
from genloop.runs.lineage import locate

SIDES = ("baseline", "floor")


def is_comparison(folder: Path) -> bool:
    """Whether a folder is a run of `metrics`."""
    found = read_run(folder)
    return found is not None and found["job"] == "metrics"


def write_comparison_of(run: Path, out: Path) -> Path:
    """The page and tables of the first metric of pairs of a run -> OUT/index.html.

    ValueError when it compares no pairs or has no finished unit; images and reference must be where they were.
    """
    config = read_yaml(run / "config.yaml")
    what = _measurement(config, run)
    names = what.needs("pairs")
    if not names:
        raise ValueError(f"{run}: a report of a run of metrics shows the metric pairs, this one has none")
    rows = list(read_rows(run))
    if not rows:
        raise ValueError(f"{run} has no finished unit yet, there is nothing to report")
    return write_comparison(what, names[0], rows, out, config.get("seed", 0), config.get("format", "page"))


def _measurement(config: dict[str, Any], run: Path) -> Measurement:
    def place(key: str) -> Path | None:
        return locate(Path(config[key]), run) if config.get(key) else None

    images = place("images")
    assert images is not None, run
    return Measurement(
        TypeAdapter(Metrics).validate_python(config["metrics"]),
        images,
        place("reference"),
        place("prompts"),
        config.get("limit"),
        Path,
        {key: folder for key in SIDES if (folder := place(key)) is not None},
        config.get("seed", 0),
    )
