"""A run of `metrics` as the report reads it again: what was measured, and its rows."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from genloop.config import read_yaml
from genloop.ledger import read_rows
from genloop.metrics.makers import Metrics
from genloop.metrics.measurement import Measurement
from genloop.report.images.scores import write_scores
from genloop.report.images.write import write_comparison
from genloop.runs.lineage import locate

SIDES = ("baseline", "floor")


def write_metrics(run: Path, out: Path) -> Path:
    """The page of a run of `metrics` -> OUT/index.html: of pairs beside their reference where it measured them, else
    images with the highest and lowest scores, and every number.

    ValueError when it has no finished unit; images and reference must be where they were for pairs.
    """
    config = read_yaml(run / "config.yaml")
    what = _measurement(config, run)
    rows = list(read_rows(run))
    if not rows:
        raise ValueError(f"{run} has no finished unit yet, there is nothing to report")
    if names := what.needs("pairs"):
        return write_comparison(what, names[0], rows, out, config.get("seed", 0), config.get("format", "page"))
    return write_scores(run, what.images, list(what.scores), rows, out)


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
