"""Dot-and-whisker charts: where each estimate and its interval go, in percent of the plot's width.

The template draws them as inline SVG in relative units, so that text keeps its size on every screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genloop.stats.intervals import Interval

ROW_HEIGHT = 14  # px for one mark
ROW_GAP = 14  # px between two rows of marks


@dataclass(frozen=True, slots=True)
class Mark:
    """One dot with its whisker: positions in percent of the width, `y` in px, and the run's number for its colour."""

    run: int
    x: float
    x1: float
    x2: float
    y: float


@dataclass(frozen=True, slots=True)
class ChartRow:
    """A labelled row of marks: top and height in px."""

    label: str
    top: float
    height: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Rows of marks over an axis; `ticks` are (percent of the width, label)."""

    rows: tuple[ChartRow, ...]
    ticks: tuple[tuple[float, str], ...]
    height: float


def dot_and_whisker(
    rows: Sequence[tuple[str, Sequence[tuple[int, Interval | None]]]], ticks: Sequence[tuple[float, str]]
) -> Chart:
    """Rows of (label, [(run number, interval or None)]); the axis goes from the first to the last tick value."""
    start, stop = ticks[0][0], ticks[-1][0]

    def place(value: float) -> float:
        return round(100 * (min(max(value, start), stop) - start) / (stop - start), 2)

    laid_out, top = [], 0.0
    for label, estimates in rows:
        height = float(ROW_HEIGHT * len(estimates) + ROW_GAP)
        marks = [
            Mark(run, place(e.estimate), place(e.low), place(e.high), top + ROW_GAP / 2 + ROW_HEIGHT * (i + 0.5))
            for i, (run, e) in enumerate(estimates)
            if e is not None
        ]
        laid_out.append(ChartRow(label, top, height, tuple(marks)))
        top += height
    return Chart(tuple(laid_out), tuple((place(value), text) for value, text in ticks), top)
