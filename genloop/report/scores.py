"""The numbers of the page: accuracy by task with intervals, and paired differences between two runs.

Scores and their intervals are those that `evaluate` prints; prompts are clusters, the overall score is GenEval's, the
unweighted mean of the tasks. Two runs are compared prompt by prompt, and only where the job `compare` would do it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genloop.metrics.comparison import conditions_of, pair_up
from genloop.metrics.comparison_regime import is_allowed
from genloop.metrics.statistics import Interval, holm, mcnemar, paired_bootstrap
from genloop.metrics.statistics_rates import Rate, rates
from genloop.records import TAGS
from genloop.report.expense import Expense, expense, mean
from genloop.report.runs import JudgedImage, Run

SIGNIFICANT = 0.05
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
class Difference:
    """Accuracy of a later run minus the base in one task (or "overall"), and in how many prompts it did better."""

    task: str
    points: Interval
    better: int
    worse: int
    p: float  # exact McNemar over prompts; of a task Holm-corrected for the number of tasks
    significant: bool

    @property
    def result(self) -> str:
        """better, worse or same: what may be claimed of the later run."""
        if not self.significant:
            return "same"
        return "better" if self.points.estimate > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`run` against `base`; without differences `refusal` says why they are not compared, `command` how they can be."""

    base: Run
    run: Run
    differences: tuple[Difference, ...]
    refusal: str = ""
    command: str = ""


def score(run: Run, unit: float | None = None) -> list[Score]:
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
        cost = expense([image.making for image in images], unit)
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


def missing_tasks(run: Run) -> list[str]:
    """The tasks of GenEval that the run has no image of: its overall score is not the mean of six."""
    return [tag for tag in TAGS if tag not in run.tags]


def compare(base: Run, run: Run) -> Comparison:
    """Paired differences by task and overall; a refusal where the job `compare` has one."""
    for one in (base, run):
        if one.counts.done < one.counts.total:
            return Comparison(base, run, (), f"{one.letter} {one.name} is unfinished")
    try:
        pair_up(base.evaluation, run.evaluation)
    except ValueError as error:
        return Comparison(base, run, (), str(error))
    if refused := [one for one in conditions_of(base.evaluation, run.evaluation) if not is_allowed(one, ())]:
        refusal = f"they differ in {', '.join(map(str, refused))}"
        return Comparison(base, run, (), refusal, _command(base.folder, run.folder, [one.name for one in refused]))
    return Comparison(base, run, differences(base, run))


def differences(base: Run, run: Run) -> tuple[Difference, ...]:
    """By task and overall, of two runs over the same prompts."""
    prompts = list(base.by_prompt)
    tags = [base.by_prompt[prompt][0].tag for prompt in prompts]
    after, before = ([_rate(side.by_prompt[prompt]) for prompt in prompts] for side in (run, base))
    by_task = [_difference(tag, tags, after, before) for tag in base.tags]
    corrected = holm([task.p for task in by_task])
    tasks = [
        Difference(task.task, task.points, task.better, task.worse, p, p < SIGNIFICANT)
        for task, p in zip(by_task, corrected)
    ]
    points = paired_bootstrap(after, before, prompts, BOOTSTRAP_SEED, tags=tags)
    better, worse = _signs(after, before)
    p = mcnemar(better, worse)
    significant = p < SIGNIFICANT and (points.low > 0 or points.high < 0)
    return *tasks, Difference(OVERALL, points, better, worse, p, significant)


def _difference(tag: str, tags: Sequence[str], after: Sequence[float], before: Sequence[float]) -> Difference:
    rows = [i for i, other in enumerate(tags) if other == tag]
    ours, theirs = [after[i] for i in rows], [before[i] for i in rows]
    better, worse = _signs(ours, theirs)
    points = paired_bootstrap(ours, theirs, rows, BOOTSTRAP_SEED)
    return Difference(tag, points, better, worse, mcnemar(better, worse), False)


def _command(base: Path, run: Path, allow: Sequence[str]) -> str:
    """What compares the two all the same, for a shell."""
    out = run.parent / f"{run.name}-minus-{base.name}"
    words = [f"a={base}", f"b={run}", f"out={out}", f"allow=[{','.join(allow)}]"]
    return shlex.join(["genloop", "run", "compare", "geneval", *words])


def _rate(images: Sequence[JudgedImage]) -> float:
    """The share of right images of a prompt."""
    return sum(image.correct for image in images) / len(images)


def _signs(after: Sequence[float], before: Sequence[float]) -> tuple[int, int]:
    """In how many prompts the later run is better, and in how many worse."""
    pairs = list(zip(after, before))
    return sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
