"""Scenes spoilt the way generated images are: cells that belong to another shape, another colour, or to nothing.

A generated image is wrong in its cells: two quarters of an object do not belong together, one is missing, one has
another colour. What the exact detector still finds in such an image has to be learned from examples of it.
"""

import numpy as np

from genloop.shapes.render import BACKGROUND, COLOR_VALUES, TEMPLATES
from genloop.shapes.scenes import CELL, GRID, SPAN, Scene

MOST_CELLS = 3  # that are spoilt
_ELSEWHERE = 0.2  # share of them that lie anywhere, not in an object
_CHANGES = ("quarter", "color", "both", "gone")
_CHANCES = (0.5, 0.2, 0.2, 0.1)


def spoil(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 of a scene -> the same with one to three cells changed."""
    spoilt = image.copy()
    things = [(thing.row + i, thing.column + j) for thing in scene for i in range(SPAN) for j in range(SPAN)]
    for _ in range(rng.integers(1, MOST_CELLS + 1)):
        is_elsewhere = rng.random() < _ELSEWHERE
        row, column = rng.integers(GRID, size=2) if is_elsewhere else things[rng.integers(len(things))]
        place = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        spoilt[place] = _change(spoilt[place], rng)
    return spoilt


def _change(cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(CELL, CELL, 3) uint8 -> another content of the cell."""
    change = rng.choice(_CHANGES, p=_CHANCES)
    if change == "gone":
        return np.full_like(cell, BACKGROUND)
    is_drawn = (cell != BACKGROUND).any(axis=2)
    color = COLOR_VALUES[rng.integers(len(COLOR_VALUES))]
    if change == "quarter" and is_drawn.any():
        color = cell[is_drawn][0]
    if change != "color" or not is_drawn.any():
        is_drawn = _quarter(rng)
    changed = np.full_like(cell, BACKGROUND)
    changed[is_drawn] = color
    return changed


def _quarter(rng: np.random.Generator) -> np.ndarray:
    """A quarter of a random shape: (CELL, CELL) bool."""
    whole = np.zeros((SPAN * CELL, SPAN * CELL), dtype=bool)
    bitmap = TEMPLATES[rng.integers(len(TEMPLATES))]
    whole[: bitmap.shape[0], : bitmap.shape[1]] = bitmap
    row, column = rng.integers(SPAN, size=2) * CELL
    return whole[row : row + CELL, column : column + CELL]
