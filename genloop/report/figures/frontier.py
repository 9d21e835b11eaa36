"""The frontier figure: what each strategy scores for what it costs, on a logarithmic axis of cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genloop.report.figures.canvas import At, add_legend, color_of, draw_band, logarithmic_x, mark_of, plain, svg
from genloop.report.figures.labels import label_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Series:
    """Scores of one strategy at rising costs, joined by lines; `names` label its points."""

    label: str
    points: Sequence[At]
    family: str = ""  # series and dots of a family share colour and marker
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Dot:
    """The score of one strategy at one cost."""

    label: str
    point: At
    family: str = ""


def frontier_svg(
    curves: Sequence[Series],
    dots: Sequence[Dot] = (),
    *,
    title: str,
    cost: str = "operations an image, relative to one image without search",
    score: str = "score in %, with 95 % intervals",
) -> str:
    """Series of strategies with several budgets and dots of others -> an SVG document.

    A grey ribbon joins the points that nothing cheaper beats. ValueError when there is nothing to draw, or a cost of 0.
    """
    points = [point for curve in curves for point in curve.points] + [dot.point for dot in dots]
    if not points:
        raise ValueError("a frontier needs at least one curve or dot")
    if min(point.x for point in points) <= 0:
        raise ValueError(f"a logarithmic axis needs values above 0, found {min(point.x for point in points):g}")
    items: list[Series | Dot] = [*curves, *dots]
    families = {name: i for i, name in enumerate(dict.fromkeys(item.family or item.label for item in items))}

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        logarithmic_x(axes)
        axes.set(xlabel=plain(cost), ylabel=plain(score))
        best = front(points)
        x, y = [point.x for point in best], [100 * point.score.estimate for point in best]
        axes.plot(x, y, color="black", alpha=0.1, linewidth=8, solid_capstyle="round", solid_joinstyle="round")
        for curve in curves:
            draw_band(axes, curve.points, families[curve.family or curve.label], "_")
        whiskers = [np.array([[dot.point.x, 100 * bound] for bound in dot.point.score[1:]]) for dot in dots]
        for dot, whisker in zip(dots, whiskers):
            number = families[dot.family or dot.label]
            axes.plot(*whisker.T, color=color_of(number), linewidth=1.2)
            axes.plot(*_place(dot.point), **mark_of(number))
        for name, number in families.items():
            axes.plot([], [], linestyle="", label=plain(name), **mark_of(number))
        add_legend(figure, axes, ncols=3, handletextpad=0.1, columnspacing=1)
        axes.margins(x=0.08)
        named = [(name, *_place(point)) for curve in curves for name, point in zip(curve.names, curve.points) if name]
        labels = [*named, *((dot.label, *_place(dot.point)) for dot in dots)]
        label_points(figure, axes, labels, marks=[_place(point) for point in points], whiskers=whiskers)

    return svg(paint, title, 6.0)


def front(points: Sequence[At]) -> list[At]:
    """The points that no cheaper or equally cheap one beats or equals; cheapest first."""
    best: list[At] = []
    for point in sorted(points, key=lambda point: (point.x, -point.score.estimate)):
        if not best or point.score.estimate > best[-1].score.estimate:
            best.append(point)
    return best


def _place(point: At) -> tuple[float, float]:
    return point.x, 100 * point.score.estimate
