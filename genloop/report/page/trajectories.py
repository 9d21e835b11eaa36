"""The way of every candidate to one image: P(yes) by step as a small chart, and what the judge was shown as a table.

Places in the chart are in percent of its width and px of its height, so that text keeps its size on every screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

from genloop.report.page.pictures import Sheet, embed_sheet
from genloop.report.runs import Answer, Candidate, Making

CHART_HEIGHT = 132.0  # px
MAX_ROWS = 24  # candidates in a table
MAX_TICKS = 10

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trail:
    """The answers to one question about one candidate: (x %, y px) of each, joined in order; where it was cut.

    `origin`: the last answer to that question about the candidate it was made from.
    """

    candidate: int
    question: int  # number of the question: its mark
    points: tuple[Point, ...]
    cut: Point | None
    origin: Point | None
    is_chosen: bool  # the chosen candidate, or what it was made from

    @property
    def segments(self) -> list[tuple[Point, Point]]:
        return list(pairwise(self.points))


@dataclass(frozen=True, slots=True)
class Cell:
    """What was seen and said after one step: where the picture lies in the sheet (px), and "question P(yes)" lines."""

    corner: tuple[int, int] | None
    words: tuple[str, ...]
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate of the table; `notes` say how it ended."""

    index: int
    is_chosen: bool
    notes: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """All candidates of one image. `ticks` are (x %, step)."""

    questions: tuple[str, ...]
    trails: tuple[Trail, ...]
    ticks: tuple[tuple[float, int], ...]
    steps: tuple[int, ...]
    rows: tuple[Row, ...]
    num_hidden: int
    sheet: Sheet | None
    remarks: tuple[str, ...]

    @property
    def has_cuts(self) -> bool:
        return any(trail.cut for trail in self.trails)


def ways(making: Making, image: Path) -> Ways | None:
    """What the row of an image says about its candidates' ways; None when that is nothing. `image`: the final one.

    One step makes no chart.
    """
    remarks = tuple(_remarks(making))
    answers = [answer for candidate in making.candidates for answer in candidate.answers]
    steps = tuple(sorted({answer.step for answer in answers}))
    if len(steps) < 2 and making.previews is None:  # the bars of the page say as much
        return Ways((), (), (), (), (), 0, None, remarks) if remarks else None
    questions = tuple(dict.fromkeys(answer.question for answer in answers))
    last = max([*steps, making.num_steps])
    sheet = None
    if making.previews is not None:
        sheet = embed_sheet(making.previews, len(making.candidates), len(steps), image)
    shown = _shown(making)
    return Ways(
        questions=questions,
        trails=tuple(_trails(making, questions, last)) if len(steps) > 1 else (),
        ticks=tuple((_x(step, last), step) for step in _ticks(steps)),
        steps=steps,
        rows=tuple(_row(making, number, steps, sheet) for number in shown),
        num_hidden=len(making.candidates) - len(shown),
        sheet=sheet,
        remarks=remarks,
    )


def _x(step: int, last: int) -> float:
    return round(100 * step / last, 2)


def _y(p_yes: float) -> float:
    return round(CHART_HEIGHT * (1 - p_yes), 1)


def _trails(making: Making, questions: Sequence[str], last: int) -> Iterator[Trail]:
    """Those of the chosen candidate, and of what it was made from, last, so that they are drawn over the others."""
    by_index = {candidate.index: candidate for candidate in making.candidates}
    line = _line(making.chosen, by_index)
    for candidate in sorted(making.candidates, key=lambda candidate: candidate.index in line):
        parent = by_index.get(candidate.parent) if candidate.parent is not None else None
        ends = [answer.question for answer in candidate.answers if answer.p_yes is not None][-1:]
        for number, question in enumerate(questions):
            points = _points(candidate, question, last)
            if points:
                is_cut = candidate.cut_at is not None and question in ends
                yield Trail(
                    candidate.index,
                    number,
                    points,
                    cut=(_x(candidate.cut_at or 0, last), points[-1][1]) if is_cut else None,
                    origin=(_points(parent, question, last) or (None,))[-1] if parent else None,
                    is_chosen=candidate.index in line,
                )


def _line(chosen: int, by_index: Mapping[int, Candidate]) -> set[int]:
    """A candidate and everything it was made from."""
    line: set[int] = set()
    index: int | None = chosen
    while index is not None and index not in line and index in by_index:
        line.add(index)
        index = by_index[index].parent
    return line


def _points(candidate: Candidate, question: str, last: int) -> tuple[Point, ...]:
    said = [(answer.step, answer.p_yes) for answer in candidate.answers if answer.question == question]
    return tuple((_x(step, last), _y(p_yes)) for step, p_yes in said if p_yes is not None)


def _ticks(steps: Sequence[int]) -> list[int]:
    """At most so many of the steps, the first and the last among them."""
    if len(steps) <= MAX_TICKS:
        return list(steps)
    return sorted({steps[round(i * (len(steps) - 1) / (MAX_TICKS - 1))] for i in range(MAX_TICKS)})


def _shown(making: Making) -> list[int]:
    """Which candidates, by their place in the row of the image, the table shows: the chosen one, then the others."""
    places = range(len(making.candidates))
    return sorted(places, key=lambda place: making.candidates[place].index != making.chosen)[:MAX_ROWS]


def _row(making: Making, place: int, steps: Sequence[int], sheet: Sheet | None) -> Row:
    candidate = making.candidates[place]
    by_step = {step: list(said) for step, said in groupby(sorted(candidate.answers, key=_step), key=_step)}
    cells = []
    for column, step in enumerate(steps):
        said = by_step.get(step, [])
        corner = (column * sheet.width, place * sheet.height) if sheet and said else None
        is_cut = not said and candidate.cut_at is not None and step > candidate.cut_at
        cells.append(Cell(corner, tuple(_said(answer) for answer in said), is_cut))
    return Row(candidate.index, candidate.index == making.chosen, tuple(_notes(making, candidate)), tuple(cells))


def _step(answer: Answer) -> int:
    return answer.step


def _said(answer: Answer) -> str:
    return f"{answer.question} {'not judged' if answer.p_yes is None else f'{answer.p_yes:.2f}'}"


def _notes(making: Making, candidate: Candidate) -> Iterator[str]:
    if candidate.index == making.chosen:
        yield "chosen"
    if candidate.cut_at is not None:
        yield f"cut at step {candidate.cut_at}"
    if candidate.parent is not None:
        yield f"from candidate {candidate.parent}"


def _remarks(making: Making) -> Iterator[str]:
    """One sentence for each candidate that was made from another one, or of which it was said what is wrong."""
    known = making.p_yes
    for candidate in making.candidates:
        words = []
        if candidate.parent is not None:
            words.append(f"from candidate {candidate.parent}")
            before, after = known.get(candidate.parent), candidate.p_yes
            if before is not None and after is not None:
                words.append(f"P(yes) {before:.2f} → {after:.2f}")
        if candidate.reason:
            words.append(f"“{candidate.reason}”")
        if words:
            yield f"candidate {candidate.index}: {', '.join(words)}"
