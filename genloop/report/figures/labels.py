"""Labels beside points that cover neither a mark, a whisker nor each other."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genloop.report.figures.canvas import MUTED, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTANCES = (6, 9, 13, 18, 25, 34, 46, 60, 78, 100, 130, 165, 210, 260)  # points between a mark and its label
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200)  # degrees
LEADER = 20  # points: labels further away than this are joined to their mark by a line
_MARK, _GAP = 4.5, 1.0  # points


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
