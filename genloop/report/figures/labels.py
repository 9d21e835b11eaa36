"""Where the labels of a figure go: beside what they name, over nothing else, and never over each other.

Each label tries places around its anchor, near ones first, and takes the best that is free. M = obstacles, Q = places.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LINE_HEIGHT = 16.0  # px
NEAR = 20.0  # px: a label further away than this gets a line to its anchor
_DISTANCES = (9.0, 13.0, 18.0, 26.0, 36.0, 48.0, 62.0, 80.0, 100.0, 125.0, 155.0, 190.0, 230.0, 280.0, 340.0, 420.0)
_ANGLES = (0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240)  # degrees; the screen's y grows downwards
_GAP = 1.5  # px between boxes


@dataclass(frozen=True, slots=True)
class Placed:
    """A label's box: its left end, its top, its size, and where it points to."""

    text: str
    x: float
    y: float
    width: float
    anchor: tuple[float, float]

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.x, self.y, self.x + self.width, self.y + LINE_HEIGHT

    @property
    def leader(self) -> tuple[float, float] | None:
        """Where on the box a line from the anchor ends; None when the label is near enough."""
        x = min(max(self.anchor[0], self.x), self.x + self.width)
        y = min(max(self.anchor[1], self.y), self.y + LINE_HEIGHT)
        return (x, y) if math.hypot(x - self.anchor[0], y - self.anchor[1]) > NEAR else None


def place_labels(
    labels: Sequence[tuple[str, float, tuple[float, float]]],
    hard: Sequence[tuple[float, float, float, float]],
    soft: Sequence[tuple[float, float, float, float]],
    bounds: tuple[float, float, float, float],
) -> list[Placed]:
    """Labels (text, width, anchor) within `bounds`, boxes being (left, top, right, bottom) in px.

    Labels keep off each other and off `hard` boxes (marks, whiskers); off `soft` ones (curves) where that is cheap.
    """
    taken = [*hard]
    placed = []
    for text, width, anchor in labels:
        places, distances = _places(anchor, width, bounds)
        blocked = _overlaps(places, np.array(taken, dtype=np.float64).reshape(-1, 4)).sum(axis=1)
        crossed = _overlaps(places, np.array(soft, dtype=np.float64).reshape(-1, 4)).sum(axis=1)
        best = int(np.argmin(1e6 * blocked + distances + 6.0 * np.minimum(crossed, 12)))
        x, y = places[best, :2].tolist()
        placed.append(Placed(text, x, y, width, anchor))
        taken.append(placed[-1].box)
    return placed


def _places(
    anchor: tuple[float, float], width: float, bounds: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (Q, 4) around an anchor and how far each is from it (Q,); moved into the bounds where they stick out."""
    boxes, distances = [], []
    for distance in _DISTANCES:
        for rank, angle in enumerate(_ANGLES):
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x = anchor[0] + distance * dx - width * (1 - dx) / 2
            y = anchor[1] + distance * dy - LINE_HEIGHT * (1 - dy) / 2
            x = min(max(x, bounds[0]), bounds[2] - width)
            y = min(max(y, bounds[1]), bounds[3] - LINE_HEIGHT)
            boxes.append((x, y, x + width, y + LINE_HEIGHT))
            distances.append(distance + 0.4 * rank)
    return np.array(boxes), np.array(distances)


def _overlaps(places: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """(Q, 4), (M, 4) -> (Q, M) whether they overlap."""
    left, top, right, bottom = (obstacles[None, :, i] for i in range(4))
    x0, y0, x1, y1 = (places[:, i, None] for i in range(4))
    return (x0 < right + _GAP) & (x1 > left - _GAP) & (y0 < bottom + _GAP) & (y1 > top - _GAP)
