"""The outline of a mask as an SVG path along the edges of its pixels, to be filled by the even-odd rule."""

import numpy as np

MAX_SIDE = 256  # masks with a longer side are thinned out: a page shows them no larger


def outline(mask: np.ndarray) -> str:
    """(H, W) bool -> the `d` of a path in pixels: a closed loop around each region and each hole, "" for no pixel.

    Corners are where a horizontal and a vertical edge meet. Within a row (and within a column) of corners, edges join
    the first and second, the third and fourth, and so on. A point where two pixels touch diagonally holds two corners.
    """
    step = -(-max(mask.shape) // MAX_SIDE)
    corners = _corners(mask[step // 2 :: step, step // 2 :: step])  # (C, 2) of y, x, by rows
    by_column = np.lexsort((corners[:, 0], corners[:, 1]))
    below = np.empty(len(corners), dtype=int)  # of each corner the other end of its vertical edge
    below[by_column] = by_column.reshape(-1, 2)[:, ::-1].ravel()
    points, partner = (corners * step).tolist(), below.tolist()
    seen, loops = [False] * len(points), []
    for first in range(len(points)):
        if seen[first]:
            continue
        place, text = first, f"M{points[first][1]} {points[first][0]}"
        while not seen[place]:
            across = place ^ 1
            text += f"H{points[across][1]}V{points[partner[across]][0]}"
            seen[place] = seen[across] = True
            place = partner[across]
        loops.append(f"{text}z")
    return "".join(loops)


def _corners(mask: np.ndarray) -> np.ndarray:
    """(h, w) bool -> (C, 2): where the outline turns, row by row; points where it touches itself twice."""
    inside = np.pad(mask, 1).astype(np.int8)
    first, second = inside[:-1, :-1] + inside[1:, 1:], inside[:-1, 1:] + inside[1:, :-1]  # (h + 1, w + 1) diagonals
    times = np.where((first + second) % 2 == 1, 1, np.where(np.abs(first - second) == 2, 2, 0))
    return np.repeat(np.argwhere(times), times[times > 0], axis=0)
