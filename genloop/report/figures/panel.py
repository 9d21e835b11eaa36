"""One plot of scores: axes, curves with bands, dots with whiskers, and labels that keep off each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import NamedTuple

from genloop.report.figures.axes import Axis
from genloop.report.figures.labels import Placed, place_labels
from genloop.report.svg import element, hue, label, marker, path, text_width
from genloop.stats.intervals import Interval

FONT_SIZE = 13
MARK = 7.0  # px: half the side of the box that a mark takes up
_SPACING = 8.0  # px between the boxes that stand for a curve


class At(NamedTuple):
    """A score at a cost, or at a number of candidates."""

    x: float
    score: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores at rising costs, joined by straight lines. `names` label its points; families share hue and mark."""

    label: str
    points: Sequence[At]
    family: str = ""
    names: Sequence[str] = ()
    is_dashed: bool = False
    has_marks: bool = True


@dataclass(frozen=True, slots=True)
class Dot:
    """One strategy."""

    label: str
    point: At
    family: str = ""


@dataclass(frozen=True)
class Panel:
    """Curves and dots over two axes; `families` give each family its number, which is its hue and its mark.

    Without `has_legend` a curve bears its name at its end.
    """

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    curves: Sequence[Curve] = ()
    dots: Sequence[Dot] = ()
    families: dict[str, int] = field(default_factory=dict)
    has_legend: bool = False

    def draw(self) -> str:
        """The panel as SVG, everything at its place in the document."""
        labels = self.labels()
        marked = [(curve, point) for curve in self.curves if curve.has_marks for point in curve.points]
        return "".join(
            [
                *self._grid(),
                *(self._band(curve) for curve in self.curves),
                *(self._line(curve) for curve in self.curves),
                *(self._whisker(dot) for dot in self.dots),
                *(self._leader(placed) for placed in labels),
                *(self._mark(curve.label, self._number(curve), point) for curve, point in marked),
                *(self._mark(dot.label, self._number(dot), dot.point) for dot in self.dots),
                *(self._text(placed, style) for placed, (_, _, style) in zip(labels, self._wanted())),
            ]
        )

    def labels(self) -> list[Placed]:
        """Every label at its place: names of curves at their ends, names of points and dots beside them."""
        sized = [(text, text_width(text, FONT_SIZE), anchor) for text, anchor, _ in self._wanted()]
        bounds = (self.x.first + 2, self.y.last + 2, self.x.last - 2, self.y.first - 2)
        return place_labels(sized, list(self._hard()), list(self._soft()), bounds)

    def _wanted(self) -> Iterator[tuple[str, tuple[float, float], str]]:
        """Text, anchor and style of every label."""
        for curve in self.curves:
            if not self.has_legend:
                yield curve.label, self._place(curve.points[-1]), f"{hue(self._number(curve))} fill name"
            yield from ((name, self._place(at), "") for name, at in zip(curve.names, curve.points) if name)
        yield from ((dot.label, self._place(dot.point), "") for dot in self.dots if dot.label)

    def _place(self, point: At) -> tuple[float, float]:
        return self.x(point.x), self.y(point.score.estimate)

    def _hard(self) -> Iterator[tuple[float, float, float, float]]:
        """Marks and whiskers."""
        marks = [point for curve in self.curves if curve.has_marks for point in curve.points]
        for x, y in map(self._place, [*marks, *(dot.point for dot in self.dots)]):
            yield x - MARK, y - MARK, x + MARK, y + MARK
        for dot in self.dots:
            x, (_, low, high) = self.x(dot.point.x), dot.point.score
            yield x - 2, self.y(high), x + 2, self.y(low)

    def _soft(self) -> Iterator[tuple[float, float, float, float]]:
        """Small boxes along the curves."""
        for curve in self.curves:
            for (x0, y0), (x1, y1) in pairwise(map(self._place, curve.points)):
                count = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / _SPACING))
                for i in range(count + 1):
                    x, y = x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count
                    yield x - 1, y - 1, x + 1, y + 1

    def _number(self, item: Curve | Dot) -> int:
        return self.families[item.family or item.label]

    def _grid(self) -> Iterator[str]:
        left, right, bottom, top = self.x.first, self.x.last, self.y.first, self.y.last
        for value, text in self.y.ticks:
            y = self.y(value)
            yield element("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
            yield label(text, left - 8, y + 4, class_="tick", text_anchor="end")
        for value, text in self.x.ticks:
            x = self.x(value)
            yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="grid")
            yield label(text, x, bottom + 20, class_="tick", text_anchor="middle")
        yield label(self.x_title, (left + right) / 2, bottom + 42, class_="axis", text_anchor="middle")
        yield label(self.y_title, left, top - 12, class_="axis")

    def _band(self, curve: Curve) -> str:
        upper = [(self.x(point.x), self.y(point.score.high)) for point in curve.points]
        lower = [(self.x(point.x), self.y(point.score.low)) for point in curve.points]
        return element("path", d=path(upper + lower[::-1], closed=True), class_=f"{hue(self._number(curve))} fill band")

    def _line(self, curve: Curve) -> str:
        style = f"{hue(self._number(curve))} stroke curve{' dashed' if curve.is_dashed else ''}"
        return element("path", d=path([self._place(point) for point in curve.points]), class_=style)

    def _whisker(self, dot: Dot) -> str:
        x, (_, low, high) = self.x(dot.point.x), dot.point.score
        style = f"{hue(self._number(dot))} stroke whisker"
        return element("line", x1=x, x2=x, y1=self.y(low), y2=self.y(high), class_=style)

    def _mark(self, name: str, number: int, point: At) -> str:
        estimate, low, high = (f"{100 * share:.1f}" for share in point.score)
        said = element("title", escape(f"{name}: {estimate} ({low} to {high}) at {point.x:.3g}"))
        return element("g", said, marker(number, *self._place(point)))

    def _leader(self, placed: Placed) -> str:
        if placed.leader is None:
            return ""
        (x1, y1), (x2, y2) = placed.anchor, placed.leader
        return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="leader")

    def _text(self, placed: Placed, style: str) -> str:
        x, y = placed.x + placed.width / 2, placed.y + 12.5
        return label(placed.text, x, y, class_=f"{style} halo".strip(), text_anchor="middle")


def families_of(curves: Sequence[Curve], dots: Sequence[Dot] = ()) -> dict[str, int]:
    """A number for each family, in the order of first appearance; what names none is its own."""
    items: list[Curve | Dot] = [*curves, *dots]
    return {name: i for i, name in enumerate(dict.fromkeys(item.family or item.label for item in items))}
