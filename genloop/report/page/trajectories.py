"""How the judge scored every candidate of one image: a small chart of P(yes) by step, and a table of what it was shown.

Positions in the chart are in percent of its width and in px of its height, so that text keeps its size on every screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

from genloop.report.page.pictures import Sheet, embed_sheet
from genloop.report.runs import GenerationRecord
from genloop.runs.rows import Answer, RecordedCandidate

CHART_HEIGHT = 132.0  # px
MAX_ROWS = 24  # candidates in the table
MAX_TICKS = 10

Point = tuple[float, float]  # x in %, y in px


@dataclass(frozen=True, slots=True)
class Trajectory:
    """P(yes) of one candidate for one question: a point for each step at which the judge was asked."""

    candidate: int
    question: int  # index of the question; it selects the marker
    points: tuple[Point, ...]
    cut: Point | None  # where the strategy dropped the candidate
    origin: Point | None  # last point of the same question for the parent candidate
    is_chosen: bool  # of the chosen candidate or one of its ancestors

    @property
    def segments(self) -> list[tuple[Point, Point]]:
        return list(pairwise(self.points))


@dataclass(frozen=True, slots=True)
class StepCell:
    """One candidate after one step: its picture's corner in the contact sheet (px) and "question P(yes)" lines."""

    corner: tuple[int, int] | None
    words: tuple[str, ...]
    is_cut: bool  # the candidate had been dropped before this step


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate of the table; `notes` say what became of it."""

    index: int
    is_chosen: bool
    notes: tuple[str, ...]
    cells: tuple[StepCell, ...]


@dataclass(frozen=True, slots=True)
class CandidateTrajectories:
    """Chart and table of all candidates of one image. `ticks` are (x %, step)."""

    questions: tuple[str, ...] = ()
    trajectories: tuple[Trajectory, ...] = ()
    ticks: tuple[tuple[float, int], ...] = ()
    steps: tuple[int, ...] = ()
    rows: tuple[CandidateRow, ...] = ()
    num_hidden: int = 0  # candidates that the table leaves out
    sheet: Sheet | None = None
    remarks: tuple[str, ...] = ()

    @property
    def has_cuts(self) -> bool:
        return any(trajectory.cut for trajectory in self.trajectories)


def trajectories(record: GenerationRecord, image: Path) -> CandidateTrajectories | None:
    """Chart and table of one image; None when its row records neither several steps, previews nor remarks.

    `image` is the final image, whose size is that of a preview.
    """
    remarks = tuple(_remarks(record))
    answers = [answer for candidate in record.candidates for answer in candidate.trace]
    steps = tuple(sorted({answer.step for answer in answers}))
    if len(steps) < 2 and record.previews is None:  # the score bars of the page already show a single step
        return CandidateTrajectories(remarks=remarks) if remarks else None
    questions = tuple(dict.fromkeys(answer.question for answer in answers))
    last = max([*steps, record.num_steps])
    sheet = None
    if record.previews is not None:
        sheet = embed_sheet(record.previews, len(record.candidates), len(steps), image)
    shown = _shown(record)
    return CandidateTrajectories(
        questions=questions,
        trajectories=tuple(_trajectories(record, questions, last)) if len(steps) > 1 else (),
        ticks=tuple((_x(step, last), step) for step in _ticks(steps)),
        steps=steps,
        rows=tuple(_row(record, number, steps, sheet) for number in shown),
        num_hidden=len(record.candidates) - len(shown),
        sheet=sheet,
        remarks=remarks,
    )


def _x(step: int, last: int) -> float:
    return round(100 * step / last, 2)


def _y(p_yes: float) -> float:
    return round(CHART_HEIGHT * (1 - p_yes), 1)


def _trajectories(record: GenerationRecord, questions: Sequence[str], last: int) -> Iterator[Trajectory]:
    """One for each candidate and question; those of the chosen candidate and its ancestors last, to be drawn on top."""
    by_index = {candidate.candidate: candidate for candidate in record.candidates}
    chosen = _with_ancestors(record.chosen, by_index)
    for candidate in sorted(record.candidates, key=lambda candidate: candidate.candidate in chosen):
        parent = by_index.get(candidate.parent) if candidate.parent is not None else None
        last_asked = [answer.question for answer in candidate.trace if answer.p_yes is not None][-1:]
        for number, question in enumerate(questions):
            points = _points(candidate, question, last)
            if points:
                is_cut = candidate.cut_at is not None and question in last_asked
                yield Trajectory(
                    candidate.candidate,
                    number,
                    points,
                    cut=(_x(candidate.cut_at or 0, last), points[-1][1]) if is_cut else None,
                    origin=(_points(parent, question, last) or (None,))[-1] if parent else None,
                    is_chosen=candidate.candidate in chosen,
                )


def _with_ancestors(index: int | None, by_index: Mapping[int, RecordedCandidate]) -> set[int]:
    """A candidate and all candidates it descends from."""
    line: set[int] = set()
    while index is not None and index not in line and index in by_index:
        line.add(index)
        index = by_index[index].parent
    return line


def _points(candidate: RecordedCandidate, question: str, last: int) -> tuple[Point, ...]:
    asked = [(answer.step, answer.p_yes) for answer in candidate.trace if answer.question == question]
    return tuple((_x(step, last), _y(p_yes)) for step, p_yes in asked if p_yes is not None)


def _ticks(steps: Sequence[int]) -> list[int]:
    """At most MAX_TICKS of the steps, evenly spaced, the first and the last among them."""
    if len(steps) <= MAX_TICKS:
        return list(steps)
    return sorted({steps[round(i * (len(steps) - 1) / (MAX_TICKS - 1))] for i in range(MAX_TICKS)})


def _shown(record: GenerationRecord) -> list[int]:
    """Positions of the candidates in the table: the chosen one, then the others in order, at most MAX_ROWS."""
    positions = range(len(record.candidates))
    return sorted(positions, key=lambda i: record.candidates[i].candidate != record.chosen)[:MAX_ROWS]


def _row(record: GenerationRecord, position: int, steps: Sequence[int], sheet: Sheet | None) -> CandidateRow:
    candidate = record.candidates[position]
    step_of = attrgetter("step")
    by_step = {step: list(answers) for step, answers in groupby(sorted(candidate.trace, key=step_of), key=step_of)}
    cells = []
    for column, step in enumerate(steps):
        answers = by_step.get(step, [])
        corner = (column * sheet.width, position * sheet.height) if sheet and answers else None
        is_cut = not answers and candidate.cut_at is not None and step > candidate.cut_at
        cells.append(StepCell(corner, tuple(_words(answer) for answer in answers), is_cut))
    return CandidateRow(
        candidate.candidate, candidate.candidate == record.chosen, tuple(_notes(record, candidate)), tuple(cells)
    )


def _words(answer: Answer) -> str:
    return f"{answer.question} {'not judged' if answer.p_yes is None else f'{answer.p_yes:.2f}'}"


def _notes(record: GenerationRecord, candidate: RecordedCandidate) -> Iterator[str]:
    if candidate.candidate == record.chosen:
        yield "chosen"
    if candidate.cut_at is not None:
        yield f"cut at step {candidate.cut_at}"
    if candidate.parent is not None:
        yield f"from candidate {candidate.parent}"


def _remarks(record: GenerationRecord) -> Iterator[str]:
    """A line for each candidate that was made from another one or has a recorded reason for being wrong."""
    known = record.p_yes
    for candidate in record.candidates:
        words = []
        if candidate.parent is not None:
            words.append(f"from candidate {candidate.parent}")
            before, after = known.get(candidate.parent), known[candidate.candidate]
            if before is not None and after is not None:
                words.append(f"P(yes) {before:.2f} → {after:.2f}")
        if candidate.reason:
            words.append(f"“{candidate.reason}”")
        if words:
            yield f"candidate {candidate.candidate}: {', '.join(words)}"
