"""The numbers of the page: accuracy by task with intervals, and paired differences between two runs.

Scores and their intervals are those that `evaluate` prints; prompts are clusters, the overall score is GenEval's, the
unweighted mean of the tasks. Two runs are compared as the job `compare` does it, and only where it would.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genloop.records import TAGS
from genloop.report.page.costs import Expense, expense, mean
from genloop.report.runs import ReportedRun
from genloop.stats.comparison.compare import Change, conditions_of, pair_up
from genloop.stats.comparison.compare import compare as compare_evaluations
from genloop.stats.comparison.regime import in_words, is_allowed
from genloop.stats.rates import Rate, rates

OVERALL = "overall"
BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class Score:
    """The accuracy of one task, or of all (`task` is "overall": the mean of the tasks)."""

    task: str
    accuracy: Rate
    correct: int
    images: int
    prompts: int
    expense: Expense | None = None  # an image


@dataclass(frozen=True, slots=True)
class RunComparison:
    """`run` minus `base`. When not comparable: no differences, the reason, and the command that compares anyway."""

    base: ReportedRun
    run: ReportedRun
    differences: tuple[Change, ...]
    refusal: str = ""
    command: str = ""


def score(run: ReportedRun, unit: float | None = None) -> list[Score]:
    """Each task of a run in GenEval's order, then the overall score.

    `unit`: the operations of one image without search, for expenses.
    """
    found = rates(
        [float(image.correct) for image in run.images],
        [image.key for image in run.images],
        [image.tag for image in run.images],
        kind=run.intervals,
    )
    by_task = []
    for tag, accuracy in found.tasks.items():
        images = [image for image in run.images if image.tag == tag]
        num_prompts = len({image.key for image in images})
        cost = expense([image.record for image in images], unit)
        by_task.append(Score(tag, accuracy, sum(i.correct for i in images), len(images), num_prompts, cost))
    total = Score(
        OVERALL,
        found.overall,
        sum(task.correct for task in by_task),
        len(run.images),
        len(run.by_prompt),
        mean([task.expense for task in by_task]),
    )
    return [*by_task, total]


def missing_tasks(run: ReportedRun) -> list[str]:
    """The tasks of GenEval that the run has no image of: its overall score is not the mean of six."""
    return [tag for tag in TAGS if tag not in run.tags]


def compare(base: ReportedRun, run: ReportedRun) -> RunComparison:
    """Paired differences by task and overall; a refusal where the job `compare` would refuse."""
    for one in (base, run):
        if one.counts.done < one.counts.total:
            return RunComparison(base, run, (), f"{one.letter} {one.name} is unfinished")
    try:
        pair_up(base.evaluation, run.evaluation)
    except ValueError as error:
        return RunComparison(base, run, (), str(error))
    if refused := [one for one in conditions_of(base.evaluation, run.evaluation) if not is_allowed(one, ())]:
        refusal = f"they {in_words(refused)}"
        return RunComparison(base, run, (), refusal, _command(base.folder, run.folder, [one.name for one in refused]))
    return RunComparison(base, run, differences(base, run))


def differences(base: ReportedRun, run: ReportedRun) -> tuple[Change, ...]:
    """By task and overall, of two runs over the same images: those that the job `compare` finds."""
    return compare_evaluations(base.evaluation, run.evaluation, BOOTSTRAP_SEED, kind=run.intervals).changes


def _command(base: Path, run: Path, allow: Sequence[str]) -> str:
    """What compares the two all the same, for a shell."""
    out = run.parent / f"{run.name}-minus-{base.name}"
    words = [f"a={base}", f"b={run}", f"out={out}", f"allow=[{','.join(allow)}]"]
    return shlex.join(["genloop", "run", "compare", "geneval", *words])
