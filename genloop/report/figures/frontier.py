"""The frontier figure: what each strategy scores for what it costs, on a logarithmic axis of cost.

Labels beside points cover neither a mark, a whisker nor each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genloop.report.figures.canvas import (
    MUTED,
    At,
    Svg,
    add_legend,
    color_of,
    draw_band,
    logarithmic_x,
    mark_of,
    plain,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DISTANCES = (6, 9, 13, 18, 25, 34, 46, 60, 78, 100, 130, 165, 210, 260)  # points between a mark and its label
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)  # degrees
LEADER = 20  # points: labels further away than this are joined to their mark by a line
_MARK, _GAP = 4.5, 1.0  # points


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
) -> Svg:
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


def label_points(
    figure: "Figure",
    axes: "Axes",
    labels: Sequence[tuple[str, float, float]],
    *,
    marks: Sequence[tuple[float, float]],
    whiskers: Sequence[np.ndarray] = (),
) -> list[np.ndarray]:
    """Write texts (text, x, y) beside their points, off all `marks` (x, y) and `whiskers`, which are lines (2, 2).

    Each label takes the nearest free position inside the axes, longest texts first. Axis limits are final after this.
    Returns the box (left, bottom, right, top) of each label in points of the page.
    """
    figure.draw_without_rendering()
    unit = figure.dpi / 72  # pixels of a point
    frame = np.array(axes.get_window_extent().extents) / unit  # left, bottom, right, top
    points = axes.transData.transform([(x, y) for _, x, y in labels]) / unit
    places = (axes.transData.transform(marks) / unit).tolist()
    obstacles = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    for line in whiskers:
        (x1, y1), (x2, y2) = axes.transData.transform(line) / unit
        obstacles.append((min(x1, x2) - 1, min(y1, y2) - 1, max(x1, x2) + 1, max(y1, y2) + 1))
    boxes = [np.zeros(4)] * len(labels)
    for place in sorted(range(len(labels)), key=lambda i: -len(labels[i][0])):
        text, x, y = labels[place]
        note = axes.annotate(plain(text), (x, y), (0, 0), textcoords="offset points", fontsize=8, zorder=4)
        note.set_bbox({"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})
        extent = note.get_window_extent()
        box = _free_box(points[place], extent.width / unit, extent.height / unit, np.array(obstacles), frame)
        boxes[place] = box
        obstacles.append(tuple(box.tolist()))
        note.set_position((float(box[0] - points[place][0]), float(box[1] - points[place][1])))
        nearest = np.clip(points[place], box[:2], box[2:])
        if math.dist(nearest, points[place]) > LEADER:
            offset = tuple((nearest - points[place]).tolist())
            leader = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            axes.annotate("", (x, y), offset, textcoords="offset points", arrowprops=leader)
    return boxes


def _free_box(point: np.ndarray, width: float, height: float, obstacles: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The box (left, bottom, right, top) nearest to a point that is inside the frame and overlaps least."""
    best, least = np.zeros(4), math.inf
    for distance in DISTANCES:
        for rank, angle in enumerate(ANGLES):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            left = point[0] + distance * dx - width * (1 - dx) / 2
            bottom = point[1] + distance * dy - height * (1 - dy) / 2
            left = min(max(left, frame[0]), frame[2] - width)
            bottom = min(max(bottom, frame[1]), frame[3] - height)
            box = np.array([left, bottom, left + width, bottom + height])
            apart = (box[2:] + _GAP <= obstacles[:, :2]) | (obstacles[:, 2:] + _GAP <= box[:2])
            cost = 1e6 * int((~apart.any(axis=1)).sum()) + distance + 0.4 * rank
            if cost < least:
                best, least = box, cost
        if least < 1e6:
            break
    return best
