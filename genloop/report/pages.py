"""Which page a run has."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from genloop import ledger
from genloop.report.compression.write import write_compression
from genloop.report.general.flips import write_flips
from genloop.report.general.write import write_general
from genloop.report.generated.write import write_generated
from genloop.report.images.run import write_metrics
from genloop.report.irg.write import write_benchmark
from genloop.report.judges.write import write_judges
from genloop.report.page.write import write_report
from genloop.report.training.write import write_training
from genloop.rundir import read_run
from genloop.runs.generated import DRAWING_JOBS
from genloop.runs.judged import JUDGES_JOB
from genloop.runs.measured import MEASURES_JOB
from genloop.runs.trainings import is_training

Write = Callable[[Path, Path], Path]
EVALUATES_JOB = "evaluate"
PAGES: dict[str, Write] = {
    **dict.fromkeys(DRAWING_JOBS, write_generated),
    EVALUATES_JOB: lambda run, out: write_report([run], out),
    "metrics": write_metrics,
    "benchmark_irg": write_benchmark,
    "compare": write_flips,
    JUDGES_JOB: write_judges,
    MEASURES_JOB: write_compression,
}
"""{job: what writes the page of one of its runs}; trainings have theirs, every other job the general page."""


def default_folder(runs: Sequence[Path]) -> Path:
    """Where a page goes: RUN/report; of several runs RUN/report-OTHERS of the first, another one for other runs."""
    if len(runs) == 1:
        return runs[0] / "report"
    names = "-".join(run.resolve().name for run in runs[1:])[:60]
    digest = hashlib.sha256("\0".join(str(run.resolve()) for run in runs[1:]).encode()).hexdigest()[:6]
    return runs[0] / f"report-{names}-{digest}"


def write_page(runs: Sequence[Path], out: Path) -> Path:
    """The page of a run of any job, or of several evaluations together -> its path.

    ValueError or FileNotFoundError for what is no run, for a run that has nothing to show yet, and for several runs
    that are not all evaluations.
    """
    if len(runs) != 1:
        return write_report(runs, out)
    (run,) = runs
    found = read_run(run)
    if found is None:
        raise FileNotFoundError(f"{run} is not a run folder: it has no run.json; name the `out` of a job")
    if found["job"] == "report" and (run / "index.html").is_file():
        return run / "index.html"  # it is a page already
    if is_training(run):
        write: Write = write_training if (run / "metrics.jsonl").is_file() else write_general
    else:
        has_begun = bool(ledger.finished(run)) or (run / "done.json").is_file()
        write = PAGES.get(found["job"], write_general) if has_begun else write_general
    return write(run, out)
