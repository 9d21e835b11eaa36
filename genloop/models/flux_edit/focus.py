"""Focus: which image tokens count, as a cone around a point (Qwen2vl-Flux).

A token at distance d from the centre, in cells of the token grid, gets the weight max(0, 1 - d / (radius * min(h, w))).
h, w = rows and columns of the token grid.
"""

import numpy as np


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
