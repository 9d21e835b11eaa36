"""The forest plot: a row a task, the difference of two runs with its interval, a line at zero, the mean last."""

from collections.abc import Iterator, Sequence
from html import escape

from genloop.report.figures.axes import Axis, linear
from genloop.report.svg import document, element, label, path, text_width
from genloop.stats.comparison.compare import OVERALL, Change

WIDTH, TOP, ROW, BOTTOM = 900, 92, 34, 58  # px
NAMES, NUMBERS = 150, 320  # px left and right of the plot
CHANCE, MARK = {"better": "teal", "worse": "red", "same": "grey"}, 6.0


def forest_svg(changes: Sequence[Change], title: str) -> str:
    """A whole SVG document. A grey mark may be chance; faint bars reach as far as is detectable."""
    height = TOP + ROW * len(changes) + BOTTOM
    reach = max(abs(bound) for change in changes for bound in change.difference)
    counts = f"{changes[-1].images} images of {changes[-1].prompts} prompts"
    lead = f"{counts}. Grey: may be chance. Bars: what is found in 80 % of cases"
    axis = linear([-100 * max(reach, 0.02), 100 * max(reach, 0.02)], NAMES, WIDTH - NUMBERS)
    drawn = [label(title, 24, 34, class_="title"), label(lead, 24, 56, class_="axis"), *_grid(axis, len(changes))]
    for number, change in enumerate(changes):
        drawn += _row(axis, change, TOP + ROW * (number + 0.5))
    return document(title, WIDTH, height, *drawn)


def _grid(axis: Axis, num_rows: int) -> Iterator[str]:
    bottom = TOP + ROW * num_rows
    yield element("rect", x=0, y=bottom - ROW, width=WIDTH, height=ROW, class_="grey fill", opacity=0.1)
    for value, text in axis.ticks:
        zero = abs(value) < 1e-9
        style = "leader" if zero else "grid"
        yield element("line", x1=axis(value), x2=axis(value), y1=TOP, y2=bottom, class_=style)
        said = "0" if zero else f"{float(text):+g}".replace("-", "−")
        yield label(said, axis(value), bottom + 18, class_="tick", text_anchor="middle")
    middle = (axis.first + axis.last) / 2
    yield label("difference in points, with 95 % interval", middle, bottom + 40, class_="axis", text_anchor="middle")
    for text, x in (("task", 24), ("b − a", WIDTH - NUMBERS + 24), ("p", WIDTH - 128), ("detectable", WIDTH - 84)):
        yield label(text, x, TOP - 10, class_="tick")


def _row(axis: Axis, change: Change, y: float) -> Iterator[str]:
    style, name = CHANCE[change.result], change.task.replace("_", " ")
    points, low, high = (100 * share for share in change.difference)
    yield label(name, 24, y + 4, class_="name" if change.task == OVERALL else None)
    if change.detectable is not None:
        low_end, high_end = (axis(min(max(sign * 100 * change.detectable, axis.low), axis.high)) for sign in (-1, 1))
        shape = {"x": low_end, "y": y - 9, "width": high_end - low_end, "height": 18}
        yield element("rect", **shape, class_="grey fill band")
    yield element("line", x1=axis(low), x2=axis(high), y1=y, y2=y, class_=f"{style} stroke whisker")
    said = element("title", escape(f"{name}: {points:+.1f} ({low:+.1f} to {high:+.1f}), p {change.p:.3g}"))
    yield element("g", said, _mark(axis(points), y, is_overall=change.task == OVERALL, style=style))
    text = f"{_signed(points)} ({_signed(low)} to {_signed(high)})"
    yield label(text, WIDTH - NUMBERS + 24, y + 4, class_="name" if change.task == OVERALL else None)
    yield label("< 0.001" if change.p < 0.001 else f"{change.p:.3f}", WIDTH - 128, y + 4)
    reach = "none" if change.detectable is None else f"{100 * change.detectable:.1f}"
    yield label(reach, WIDTH - 84 + text_width("detectable", 12), y + 4, text_anchor="end")


def _signed(points: float) -> str:
    text = f"{points:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def _mark(x: float, y: float, *, is_overall: bool, style: str) -> str:
    if not is_overall:
        return element("circle", cx=x, cy=y, r=MARK - 1, class_=f"{style} mark")
    corners = [(x - MARK - 2, y), (x, y - MARK), (x + MARK + 2, y), (x, y + MARK)]
    return element("path", d=path(corners, closed=True), class_=f"{style} mark")
