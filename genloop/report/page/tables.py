"""The numbers of the page as text: a Markdown table for people, JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from genloop.report.page import rows
from genloop.report.page.scores import OVERALL, RunComparison, Score
from genloop.report.runs import ReportedRun
from genloop.runs.provenance import UPPER_BOUND
from genloop.stats.markdown import table_head, table_row
from genloop.stats.rates import MARKS, legend


def markdown(
    runs: Sequence[ReportedRun],
    scores: Sequence[Sequence[Score]],
    comparisons: Sequence[RunComparison],
    methods: Sequence[rows.MethodRow] = (),
) -> str:
    """Of several runs a row each; score by task and what an image cost, then the paired differences.

    Scores have 95 % intervals.
    """
    lines = [*rows.markdown(methods), ""] if methods else []
    lines += _by_run(runs, scores) if len(runs) > MOST_COLUMNS else _by_task(runs, scores)
    lines += ["", legend(score.accuracy.method for column in scores for score in column)]
    lines += [f"\n{run.letter} {run.name}: made from {REWRITTEN}" for run in runs if run.is_rewritten]
    lines += [f"\n{run.letter} {run.name}: {UPPER_BOUND}" for run in runs if run.evaluation.is_upper_bound]
    return "\n".join([*lines, *_differences(comparisons)]) + "\n"


def _by_task(runs: Sequence[ReportedRun], scores: Sequence[Sequence[Score]]) -> list[str]:
    """A task a line, every run with its cost beside the others."""
    told = [any(score.expense for score in column) for column in scores]
    heads = [[f"{run.letter} {run.name}", *([f"{run.letter} cost"] if tells else [])] for run, tells in zip(runs, told)]
    lines = table_head(["task", *(cell for head in heads for cell in head)])
    for task in tasks(scores):
        found = [next((score for score in column if score.task == task), None) for column in scores]
        cells = [[_cell(score), *([_cost(score)] if tells else [])] for score, tells in zip(found, told)]
        lines.append(table_row([task, *(cell for pair in cells for cell in pair)]))
    return lines


def _by_run(runs: Sequence[ReportedRun], scores: Sequence[Sequence[Score]]) -> list[str]:
    """A run a line, for many runs."""
    names = tasks(scores)
    lines = table_head(["run", *names])
    for run, column in zip(runs, scores):
        found = {score.task: score for score in column}
        lines.append(table_row([f"{run.letter} {run.name}", *(_cell(found.get(name)) for name in names)]))
    return lines


def _differences(comparisons: Sequence[RunComparison]) -> list[str]:
    """The tables of all comparisons."""
    lines: list[str] = []
    for comparison in comparisons:
        base, run = comparison.base, comparison.run
        lines += ["", f"{run.letter} {run.name} minus {base.letter} {base.name}, in points", ""]
        if comparison.refusal:
            anyway = f"; to compare anyway: `{comparison.command}`" if comparison.command else ""
            lines.append(f"not compared: {comparison.refusal}{anyway}")
            continue
        lines += table_head(["task", "difference", "prompts better", "prompts worse", "p", "result"])
        for one in comparison.differences:
            points = (
                f"{_points(one.difference.estimate)} ({_points(one.difference.low)} to {_points(one.difference.high)})"
            )
            lines.append(
                table_row([one.task, points, str(one.better), str(one.worse), f"{one.p:.3g}", RESULTS[one.result]])
            )
    return lines


def as_json(
    runs: Sequence[ReportedRun],
    scores: Sequence[Sequence[Score]],
    comparisons: Sequence[RunComparison],
    methods: Sequence[rows.MethodRow] = (),
) -> dict[str, Any]:
    """The same numbers unrounded."""
    return {
        "runs": [
            {
                "run": run.letter,
                "name": run.name,
                "prompts": "rewritten" if run.is_rewritten else "as they are",
                "upper_bound": run.evaluation.is_upper_bound,
                "units": {"total": run.counts.total, "done": run.counts.done, "failed": run.counts.failed},
                "scores": [
                    {
                        "task": s.task,
                        **s.accuracy.to_json(),
                        "k": s.correct,
                        "n": s.images,
                        "prompts": s.prompts,
                        "cost": asdict(s.expense) if s.expense else None,
                    }
                    for s in column
                ],
            }
            for run, column in zip(runs, scores)
        ],
        "comparisons": [
            {
                "base": comparison.base.letter,
                "run": comparison.run.letter,
                "refusal": comparison.refusal,
                "command": comparison.command,
                "differences": [
                    {
                        "task": d.task,
                        **d.difference._asdict(),
                        "better": d.better,
                        "worse": d.worse,
                        "p": d.p,
                        "significant": d.result != "same",
                    }
                    for d in comparison.differences
                ],
            }
            for comparison in comparisons
        ],
        "rows": [rows.as_json(row) for row in methods],
    }


MOST_COLUMNS = 6  # more runs are lines, not columns
REWRITTEN = "rewritten prompts: not comparable with scores of the prompts themselves"
RESULTS = {"better": "better", "worse": "worse", "same": "not significant"}


def tasks(scores: Sequence[Sequence[Score]]) -> list[str]:
    """The tasks of any run, "overall" last."""
    names = dict.fromkeys(score.task for column in scores for score in column if score.task != OVERALL)
    return [*names, OVERALL]


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    value, mark = score.accuracy.interval, MARKS[score.accuracy.method]
    count = f"n={score.images}" if score.task == OVERALL else f"{score.correct}/{score.images}"
    return f"{100 * value.estimate:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f}{mark}; {count})"


def _cost(score: Score | None) -> str:
    return score.expense.words if score and score.expense else ""


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
