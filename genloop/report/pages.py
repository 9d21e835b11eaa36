"""Which page a run has."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from genloop.report.compression.write import write_compression
from genloop.report.generated.write import is_generated, write_generated
from genloop.report.images.run import is_comparison, write_comparison_of
from genloop.report.judges.write import write_judges
from genloop.report.page.write import write_report
from genloop.report.training.write import write_training
from genloop.runs.judged import is_judging
from genloop.runs.measured import is_measuring
from genloop.runs.trainings import is_training


def default_folder(runs: Sequence[Path]) -> Path:
    """Where a page goes: RUN/report; of several runs RUN/report-OTHERS of the first, another one for other runs."""
    if len(runs) == 1:
        return runs[0] / "report"
    names = "-".join(run.resolve().name for run in runs[1:])[:60]
    digest = hashlib.sha256("\0".join(str(run.resolve()) for run in runs[1:]).encode()).hexdigest()[:6]
    return runs[0] / f"report-{names}-{digest}"


def write_page(runs: Sequence[Path], out: Path) -> Path:
    """The page of runs that have one: evaluations have one together, each other kind its own."""
    if len(runs) == 1 and is_training(runs[0]):
        return write_training(runs[0], out)
    if len(runs) == 1 and is_generated(runs[0]):
        return write_generated(runs[0], out)
    if len(runs) == 1 and is_comparison(runs[0]):
        return write_comparison_of(runs[0], out)
    if len(runs) == 1 and is_judging(runs[0]):
        return write_judges(runs[0], out)
    if len(runs) == 1 and is_measuring(runs[0]):
        return write_compression(runs[0], out)
    return write_report(runs, out)
