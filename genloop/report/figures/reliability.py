"""The reliability diagram of a judge (DeGroot and Fienberg 1983): how often yes was right where it said P(yes)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genloop.report.figures.axes import Axis, linear
from genloop.report.figures.panel import At, Curve, Panel, families_of
from genloop.report.svg import document, element, hue, label, marker, path
from genloop.stats.intervals import Interval

LEFT, RIGHT, WIDTH, PLOT = 64, 24, 640, 420  # px; PLOT: height of the plot
_LINE, _BARS, _ROW = 22, 26, 52  # px: a line of the legend, the highest bar, a row of bars with their numbers


def draw(overall: Mapping[str, Mapping[str, Any]], *, title: str = "How far P(yes) can be believed") -> str:
    """{question: its numbers} of `genloop.stats.judges.summary.summarize_judge` -> a whole SVG document.

    One curve a question, on the dashed diagonal where P(yes) is the share of yes; below, the answers in each bin.
    """
    curves = [
        Curve(question, [At(bar["p_yes"], Interval(*bar["yes"])) for bar in row["reliability"]])
        for question, row in overall.items()
    ]
    families = families_of(curves)
    top = 60 + _LINE * len(curves) + 24
    bottom = top + PLOT
    panel = Panel(
        x=linear([0.0, 1.0], LEFT, WIDTH - RIGHT, percent=True),
        y=linear([0.0, 1.0], bottom, top, percent=True),
        x_title="P(yes) in %, mean of a bin",
        y_title="share of yes in %, with 95 % bands",
        curves=curves,
        families=families,
        has_legend=True,
    )
    diagonal = path([(panel.x(0.0), panel.y(0.0)), (panel.x(1.0), panel.y(1.0))])
    parts = [label(title, LEFT, 34, class_="title"), *_legend(overall, families)]
    parts += [element("path", d=diagonal, class_="leader dashed"), panel.draw()]
    parts.append(label("answers in each bin", LEFT, bottom + 74, class_="axis"))
    for place, (question, row) in enumerate(overall.items()):
        parts += _bars(row["reliability"], panel.x, bottom + 84 + _ROW * place, families[question])
    return document(title, WIDTH, bottom + 96 + _ROW * len(curves), *parts)


def _legend(overall: Mapping[str, Mapping[str, Any]], families: Mapping[str, int]) -> Iterator[str]:
    """Mark, name and calibration error of each question, a line each."""
    for place, (question, row) in enumerate(overall.items()):
        y = 60.0 + _LINE * place
        estimate, low, high = (f"{100 * share:.1f}" for share in row["ece"])
        yield marker(families[question], LEFT + 7, y - 4.5)
        yield label(f"{question}: calibration error {estimate} % ({low} to {high}), {row['n']:,} answers", LEFT + 18, y)


def _bars(bins: Sequence[Mapping[str, Any]], x: Axis, top: float, number: int) -> Iterator[str]:
    """How many answers of one question each bin has: a bar, and the number under it."""
    most = max(bar["n"] for bar in bins)
    for bar in bins:
        left, right = x(bar["low"]) + 4, x(bar["high"]) - 4
        height = max(1.0, _BARS * bar["n"] / most)
        shape = {"x": left, "y": top + _BARS - height, "width": right - left, "height": height}
        yield element("rect", **shape, class_=f"{hue(number)} fill", opacity=0.55)
        yield label(f"{bar['n']:,}", (left + right) / 2, top + _BARS + 15, class_="tick", text_anchor="middle")
