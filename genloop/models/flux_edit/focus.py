"""Focus: which image tokens count, as a cone around a point (Qwen2vl-Flux).

A token at distance d from the centre, in cells of the token grid, gets the weight max(0, 1 - d / (radius * min(h, w))).
h, w = rows and columns of the token grid.
"""

import numpy as np

from genloop.models.flux_edit.drawing import Focus

DARKEST = 0.15  # how much of a token that does not count is still to be seen


def focus_map(
    rows: int, columns: int, center_x: float, center_y: float, radius: float, *, published: bool = False
) -> np.ndarray:
    """(h, w) float32 in [0, 1]. The centre is a share of the width and height, the radius one of the shorter side.

    Cells are measured at their centres, so that 0.5 is the middle of the grid and a mirrored point gives a mirrored
    map. `published` measures them at their corners instead, as the released code does: there the middle of an even grid
    lies half a cell to the lower right. ValueError for a radius of 0, which weighs nothing.
    """
    if not radius > 0:
        raise ValueError(f"focus.radius: needs a number above 0, found {radius}")
    shift = 0.0 if published else 0.5
    y, x = np.mgrid[:rows, :columns] + shift
    distance = np.hypot(y - center_y * rows, x - center_x * columns)
    return np.clip(1 - distance / (radius * min(rows, columns)), 0, 1).astype(np.float32)


def focus_picture(picture: np.ndarray, grid: tuple[int, int], focus: Focus) -> np.ndarray:
    """(H, W, 3) uint8, rows and columns of its tokens -> the picture, each token as bright as its weight."""
    rows, columns = grid
    weights = focus_map(rows, columns, focus.center_x, focus.center_y, focus.radius, published=focus.published)
    height, width = picture.shape[:2]
    cells = weights[np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)]
    return (picture * (DARKEST + (1 - DARKEST) * cells[..., None])).round().astype(np.uint8)
