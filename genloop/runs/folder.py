"""The run of `generate` around a folder of images."""

from pathlib import Path
from typing import Any

from genloop.ledger import finished, plan_of
from genloop.rundir import RunError, read_run


def units_to_make(images: Path) -> int:
    """How many units the run of `generate` around a folder of images still lacks, be they open or failed."""
    run = images.resolve().parent
    planned = plan_of(run).get("units", 0) if generate_fingerprint(images) else 0
    return max(0, planned - len(finished(run)))


def generate_fingerprint(images: Path) -> dict[str, Any] | None:
    """The fingerprint of the run of `generate` around a folder of images."""
    try:
        found = read_run(images.resolve().parent)
    except RunError:
        return None  # some other program's run.json
    return found if found and found["job"] == "generate" else None
