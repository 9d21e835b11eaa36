"""Drawing of the embedded world: ten shapes in GenEval's ten colours on a flat gray background.

An image is 24 x 24 RGB pixels, a 6 x 6 grid of 4 x 4 patches. A shape is a 7 x 7 bitmap whose top-left pixel lies on a
multiple of 4, so every object fills exactly 2 x 2 patches. H, W = 24; B = images.
"""

from collections.abc import Sequence

import numpy as np

from genloop.records import COLORS, PALETTE
from genloop.shapes.scenes import CELL, GRID, SHAPES, Scene

SIZE = GRID * CELL  # pixels
BACKGROUND = (150, 150, 150)

_DRAWINGS = {
    "circle": "..###.. .#####. ####### ####### ####### .#####. ..###..",
    "square": "####### ####### ####### ####### ####### ####### #######",
    "triangle": "...#... ...#... ..###.. ..###.. .#####. .#####. #######",
    "star": "...#... ...#... ####### .#####. ..###.. .##.##. ##...##",
    "cross": "...#... ...#... ...#... ####### ...#... ...#... ...#...",
    "ring": "..###.. .##.##. ##...## #.....# ##...## .##.##. ..###..",
    "heart": "##...## ###.### ####### ####### .#####. ..###.. ...#...",
    "diamond": "...#... ..###.. .#####. ####### .#####. ..###.. ...#...",
    "moon": "..##### .###... ###.... ##..... ###.... .###... ..#####",
    "arrow": "...#... ..###.. .#####. ##.#.## ...#... ...#... ...#...",
}


def _bitmap(drawing: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in drawing.split()])


TEMPLATES = np.stack([_bitmap(_DRAWINGS[shape]) for shape in SHAPES])  # (10, 7, 7) bool, in the order of SHAPES
COLOR_VALUES = np.array([PALETTE[color] for color in COLORS], dtype=np.uint8)  # (10, 3), in the order of COLORS


def render(scenes: Sequence[Scene]) -> np.ndarray:
    """Scenes -> (B, 24, 24, 3) uint8."""
    images = np.empty((len(scenes), SIZE, SIZE, 3), dtype=np.uint8)
    images[:] = BACKGROUND
    span = TEMPLATES.shape[1]
    for image, scene in zip(images, scenes, strict=True):
        for thing in scene:
            top, left = thing.row * CELL, thing.column * CELL
            bitmap = TEMPLATES[SHAPES.index(thing.shape)]
            image[top : top + span, left : left + span][bitmap] = PALETTE[thing.color]
    return images
