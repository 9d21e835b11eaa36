"""The page itself: everything the template shows, put together, rendered and written.

One HTML file that needs nothing else: styles and images are inside, no script, no request leaves it. The bytes depend
on the run folders alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.report.failures.write import page_name, write_failures
from genloop.report.figures.canvas import Svg
from genloop.report.figures.forest import forest_svg
from genloop.report.figures.shares import shares_svg
from genloop.report.files import write_files
from genloop.report.page import gallery, plans, provenance, rows, scores, tables
from genloop.report.page.chart import Chart, dot_and_whisker
from genloop.report.page.costs import Expense, unit_of
from genloop.report.rendering import as_link, minus, percent, signed
from genloop.report.runs import ReportedRun, check_runs, read_runs
from genloop.runs.provenance import UPPER_BOUND
from genloop.stats.intervals import Interval
from genloop.stats.rates import MARKS, legend

SCORE_TICKS = [(tick / 100, f"{tick} %" if tick == 100 else str(tick)) for tick in (0, 25, 50, 75, 100)]
NUM_EXTREMES = 3  # best, and worst, images at the top
MOST_HEADS = 6  # more runs are rows of a table alone, without a card each
OUTCOMES = {"right": "right", "wrong": "wrong", "mixed": "runs differ"}
COST_METHOD = (
    "Below each score what an image cost: decoding steps of all candidates, images shown to a judge, and all "
    "operations relative to one image without search (of the first run)."
)
DIFFERENCE_METHOD = (
    "Runs are compared image by image, prompts being the clusters. Intervals are a paired bootstrap over prompts; p is "
    "that of a sign-flip permutation test over prompts, of a task Holm-corrected for the number of tasks. A difference "
    "counts as better or worse when p < 0.05. An interval that lies beyond 0 can belong to a difference that is "
    "neither: it is that of one task taken alone, while p answers for the number of tasks that were looked at."
)


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """A comparison and its chart; no chart when the runs cannot be compared."""

    comparison: scores.RunComparison
    chart: Chart | None


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    controls: Sequence[tuple[Path, Path]] = (),
    num_cards: int = 48,
    num_closeups: int = 6,
) -> Path:
    """Write index.html, table.md, table.json and a page about each run's failures into `out` -> the path of the page.

    `runs` are folders of evaluate; the first is the base of all comparisons, and its report/ the default of `out`.
    `controls` are pairs of them, (run, its control), that are compared too. From three runs on, cost.svg and cost.png
    show score against cost. ValueError or FileNotFoundError when a run is something else or has no finished unit.
    """
    check_runs(runs, controls)
    found = read_runs(runs)
    out = out or runs[0] / "report"
    unit = unit_of(image.record for run in found for image in run.images)
    columns = [scores.score(run, unit) for run in found]
    comparisons = [scores.compare(found[0], run) for run in found[1:]]
    by_folder = {run.folder.resolve(): run for run in found}
    pairs = [[by_folder[folder.resolve()] for folder in pair] for pair in controls]
    comparisons += [scores.compare(base, run) for run, base in pairs]
    methods = rows.rows_of(found, columns, comparisons) if len(found) >= rows.MIN_ROWS else []
    cost = rows.cost_svg(methods)
    content = _content(found, columns, comparisons, unit, num_cards, num_closeups)
    content |= {"methods": methods, "methods_method": rows.METHOD, "points": rows.points}
    content |= {"figure": as_link(cost) if cost else ""}
    page = write_files(
        out,
        "page.html.j2",
        content,
        table=tables.markdown(found, columns, comparisons, methods),
        numbers=tables.as_json(found, columns, comparisons, methods),
        figures=_figures(found, columns, comparisons) | ({"cost": cost} if cost else {}),
    )
    for run in found:
        write_failures(run, out, num_shots=num_cards)
    return page


def _figures(
    runs: Sequence[ReportedRun],
    columns: Sequence[Sequence[scores.Score]],
    comparisons: Sequence[scores.RunComparison],
) -> dict[str, Svg]:
    """Scores by task, and a forest plot of the differences to each base."""
    names = [f"{run.letter} {run.name}" for run in runs]
    by_task = {
        task: [next((score.accuracy.interval for score in column if score.task == task), None) for column in columns]
        for task in tables.tasks(columns)
    }
    found = {"scores": shares_svg(by_task, names, "Score by task", "images that show their prompt, in %")}
    for one in comparisons if len(runs) <= MOST_HEADS else ():
        if one.differences:
            title = f"{one.run.name} minus {one.base.name}"
            found[f"difference-{one.run.letter}-{one.base.letter}".lower()] = forest_svg(one.differences, title)
    return found


def _content(
    runs: Sequence[ReportedRun],
    columns: Sequence[Sequence[scores.Score]],
    comparisons: Sequence[scores.RunComparison],
    unit: float | None,
    num_cards: int,
    num_closeups: int,
) -> dict[str, Any]:
    """What the template needs, by name."""
    found = gallery.cases(runs)
    cards, closeups = gallery.cards(found, num_cards), gallery.closeups(found, num_closeups, unit)
    tags = list(dict.fromkeys(card.case.tag for card in cards))
    outcomes = [name for name in OUTCOMES if any(card.case.outcome == name for card in cards)]
    return {
        "title": _title(runs),
        "lead": _lead(runs, comparisons),
        "notices": [*_notices(runs), *_refusals(comparisons)],
        "runs": runs,
        "most_heads": MOST_HEADS,
        "heads": [(run, column[-1], _origin(run, column[-1].expense)) for run, column in zip(runs, columns)],
        "reading": list(_reading(columns, comparisons)),
        "marks": MARKS,
        "chart_of_scores": _score_chart(columns),
        "tasks": tables.tasks(columns),
        "columns": [{score.task: score for score in column} for column in columns],
        "contrasts": [ComparisonView(c, _difference_chart(c) if c.differences else None) for c in comparisons],
        "results": tables.RESULTS,
        "cards": cards,
        "extremes": gallery.extremes(found, NUM_EXTREMES),
        "num_cases": len(found),
        "tags": tags,
        "outcomes": [(name, OUTCOMES[name]) for name in outcomes],
        "kinds": {(card.case.tag, card.case.outcome) for card in cards},
        "closeups": closeups,
        "shows_trajectories": any(h.trajectories for closeup in closeups for h in closeup.histories),
        "pages": [(page_name(run), f"Failures {run.letter}" if len(runs) > 1 else "Failures") for run in runs],
        "plans": plans.plans(runs),
        "records": provenance.records(runs),
        "overall": scores.OVERALL,
    }


def _reading(columns: Sequence[Sequence[scores.Score]], comparisons: Sequence[scores.RunComparison]) -> Iterator[str]:
    """How scores, costs and differences come about."""
    method = legend(score.accuracy.method for column in columns for score in column)
    yield f"Scores are shares of images that show what their prompt asks for; overall is the mean of tasks. {method}."
    if any(score.expense for column in columns for score in column):
        yield COST_METHOD
    if any(one.differences for one in comparisons):
        yield DIFFERENCE_METHOD


def _title(runs: Sequence[ReportedRun]) -> str:
    names = [run.name for run in runs]
    if len(names) > MOST_HEADS:
        return f"{len(names)} runs compared"
    if len(names) == 1:
        return f"Evaluation of {names[0]}"
    return f"{', '.join(names[:-1])} and {names[-1]} compared"


def _lead(runs: Sequence[ReportedRun], comparisons: Sequence[scores.RunComparison]) -> str:
    """The finding in one sentence."""
    compared = [c for c in comparisons if c.differences]
    if len(runs) != 2 or not compared:
        images, prompts = sum(len(run.images) for run in runs), len({key for run in runs for key in run.by_prompt})
        return f"{images} images of {prompts} prompts, judged by GenEval's rules."
    overall = compared[0].differences[-1]
    points, low, high = overall.difference
    distance = f"{percent(abs(points))} points {'higher' if points > 0 else 'lower'} than" if points else "the same as"
    claim = "not significant" if overall.result == "same" else "significant"
    return (
        f"{runs[1].name} scores {distance} {runs[0].name} "
        f"(95 % interval of the difference {signed(low)} to {signed(high)}): {claim}."
    )


def _notices(runs: Sequence[ReportedRun]) -> Iterator[str]:
    """Warnings about incomplete or incomparable runs."""
    for run in runs:
        name = f"{run.letter} {run.name}" if len(runs) > 1 else run.name
        state = run.counts
        if state.done < state.total:
            failed = f", {state.failed} failed" if state.failed else ""
            yield f"{name} is unfinished: {state.done} of {state.total} units are done{failed}. Others do not count."
        if run.is_rewritten:
            yield f"{name} was made from {tables.REWRITTEN}."
        if run.evaluation.is_upper_bound:
            yield f"{name} was {UPPER_BOUND}."
        if run.made and run.made.done < run.made.total:
            yield f"{name}: its images are those of an unfinished run, {run.made.done} of {run.made.total} units."
        absent = ", ".join(scores.missing_tasks(run))
        if absent:
            yield f"{name} has no image of {absent}: its overall score is not comparable with one of six tasks."
        lost = gallery.missing_images(run)
        if lost:
            yield f"{name}: {lost} of {len(run.images)} image files are missing. Their verdicts still count."


def _refusals(comparisons: Sequence[scores.RunComparison]) -> Iterator[str]:
    for one in comparisons:
        if one.refusal:
            later, base = (f"{run.letter} {run.name}" for run in (one.run, one.base))
            yield f"{later} is not compared with {base}: {one.refusal}."


def _origin(run: ReportedRun, cost: Expense | None) -> str:
    """Strategy and cost of the images of a run; empty when its rows do not record them."""
    records = [image.record for image in run.images if image.record is not None]
    if not records:
        return ""
    strategies = ", ".join(sorted({record.strategy for record in records}))
    return f"strategy {strategies}; an image took {cost.words}" if cost else f"strategy {strategies}"


def _score_chart(columns: Sequence[Sequence[scores.Score]]) -> Chart:
    by_task = [{score.task: score.accuracy.interval for score in column} for column in columns]
    rows: list[tuple[str, list[tuple[int, Interval | None]]]] = [
        (task, [(number, column.get(task)) for number, column in enumerate(by_task)]) for task in tables.tasks(columns)
    ]
    return dot_and_whisker(rows, SCORE_TICKS)


def _difference_chart(comparison: scores.RunComparison) -> Chart:
    reach = max(abs(bound) for row in comparison.differences for bound in row.difference)
    step = next(step for step in (2, 5, 10, 15, 20, 30, 50) if reach <= 2 * step / 100 or step == 50)
    ticks = [(tick / 100, minus(f"{tick:+d}") if tick else "0") for tick in range(-2 * step, 2 * step + 1, step)]
    return dot_and_whisker(
        [(row.task, [(comparison.run.number, row.difference)]) for row in comparison.differences], ticks
    )
