"""A run as a row of a table of methods: score, gain over the first run and over its control, cost.

Costs share one unit, an image of the first run's generator without a search. Those of a search are counted operations
(`genloop.report.page.costs`). Those of training are the CPU-seconds of all runs that an image's run was made from (its
checkpoint, the pairs, the images these came from), relative to what an image of the first run took, spread over the
images that are reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genloop.report.figures.canvas import At, Svg
from genloop.report.figures.frontier import Dot, frontier_svg
from genloop.report.page.scores import RunComparison, Score
from genloop.report.runs import ReportedRun
from genloop.runs.lineage import cpu_seconds, job_of, made_from
from genloop.stats.comparison.compare import Change
from genloop.stats.markdown import table_head, table_row

TRAINING = "train_"  # what the names of trainings begin with
MIN_ROWS = 3  # fewer runs need no table of methods
METHOD = (
    "Operations and training are in images of the first run's generator without a search; training (all that a run's "
    "checkpoints were made from, in CPU-seconds of this machine) is spread over the images of the run"
)


@dataclass(frozen=True, slots=True)
class MethodRow:
    """One run. Differences are overall, None for the first run or without a control; costs None when not known."""

    run: ReportedRun
    score: Score
    gain: Change | None
    control: ReportedRun | None
    over_control: Change | None
    training: float | None  # CPU-seconds of the trainings that it was made from
    making: float | None  # CPU-seconds of all other runs that it was made from: images, pairs
    trained: float | None  # both, in images without a search for each image of the run

    @property
    def searched(self) -> float | None:
        """Operations an image, in images without a search."""
        return self.score.expense.relative if self.score.expense else None

    @property
    def cost(self) -> float | None:
        """Of search and training together."""
        return None if self.searched is None or self.trained is None else self.searched + self.trained


def rows_of(
    runs: Sequence[ReportedRun], columns: Sequence[Sequence[Score]], comparisons: Sequence[RunComparison]
) -> list[MethodRow]:
    """A row for each run; the first is what all are compared with."""
    unit = _seconds_an_image(runs[0], columns[0][-1])
    return [_row(run, column[-1], runs[0], comparisons, unit) for run, column in zip(runs, columns)]


def markdown(rows: Sequence[MethodRow]) -> list[str]:
    """The rows as a table in Markdown, differences in points, with 95 % intervals."""
    lines = table_head(
        ["run", "overall", "minus A", "minus its control", "operations", "training", "CPU-s of training"]
    )
    for row in rows:
        value = row.score.accuracy.interval
        score = f"{100 * value.estimate:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f}; n={row.score.images})"
        control = f" ({row.control.letter})" if row.control else ""
        costs = [_times(row.searched), _times(row.trained), _seconds(row)]
        cells = [f"{row.run.letter} {row.run.name}", score, points(row.gain), points(row.over_control) + control]
        lines.append(table_row([*cells, *costs]))
    return [*lines, "", f"{METHOD}."]


def as_json(row: MethodRow) -> dict[str, Any]:
    """The same numbers unrounded."""
    return {
        "run": row.run.letter,
        "minus_first": row.gain.difference._asdict() if row.gain else None,
        "control": row.control.letter if row.control else None,
        "minus_control": row.over_control.difference._asdict() if row.over_control else None,
        "cost": {"search": row.searched, "training": row.trained},
        "cpu_seconds": {"training": row.training, "making": row.making},
    }


def cost_svg(rows: Sequence[MethodRow]) -> Svg | None:
    """Score against the cost of search and training on one axis; None where fewer than two rows have a cost."""
    priced = [row for row in rows if row.cost]
    if len(priced) < 2:
        return None
    dots = [Dot(row.run.letter, At(row.cost, row.score.accuracy.interval), _family(row)) for row in priced if row.cost]
    axis = "cost an image of search and training, in images without a search"
    return frontier_svg([], dots, title="Score against the cost of search and training", cost=axis)


def points(change: Change | None) -> str:
    """A difference in points with its interval; "" without one."""
    if change is None:
        return ""
    estimate, low, high = (100 * bound for bound in change.difference)
    return f"{estimate:+.1f} ({low:+.1f} to {high:+.1f})"


def _row(
    run: ReportedRun, score: Score, base: ReportedRun, comparisons: Sequence[RunComparison], unit: float | None
) -> MethodRow:
    own = [one for one in comparisons if one.run is run and one.differences]
    gain = next((one.differences[-1] for one in own if one.base is base), None)
    against = next((one for one in own if one.base is not base), None)
    training, making = _took(run)
    trained = None if training is None or making is None else 0.0 if not training else None
    if training and making is not None and unit:
        trained = (training + making) / len(run.images) / unit
    control, over_control = (against.base, against.differences[-1]) if against else (None, None)
    return MethodRow(run, score, gain, control, over_control, training, making, trained)


def _took(run: ReportedRun) -> tuple[float | None, float | None]:
    """CPU-seconds of trainings, and of what else went into them; None where one of them noted none."""
    if run.generate is None:
        return None, None
    sources = [(job_of(folder), cpu_seconds(folder)) for folder in made_from(run.generate)]
    if not any(job.startswith(TRAINING) for job, _ in sources):
        return 0.0, 0.0
    if any(seconds is None for job, seconds in sources if job.startswith((TRAINING, "generate"))):
        return None, None
    trainings = sum(seconds or 0.0 for job, seconds in sources if job.startswith(TRAINING))
    return trainings, sum(seconds or 0.0 for job, seconds in sources if not job.startswith(TRAINING))


def _seconds_an_image(run: ReportedRun, score: Score) -> float | None:
    """CPU-seconds of an image without a search."""
    seconds = cpu_seconds(run.generate) if run.generate else None
    relative = score.expense.relative if score.expense else None
    return seconds / len(run.images) / relative if seconds and relative else None


def _family(row: MethodRow) -> str:
    searched = (row.searched or 0) > 1.001
    words = {(False, False): "as it is", (False, True): "searched", (True, False): "trained"}
    return words.get((bool(row.training), searched), "trained and searched")


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"


def _seconds(row: MethodRow) -> str:
    if row.training is None or row.making is None:
        return ""
    return f"{row.training:.0f} + {row.making:.0f} of its data" if row.training else "0"
