"""What is drawn of a request to edit a picture, and where it looks. No torch. H, W = pixels."""

from dataclasses import dataclass

import numpy as np

from genloop.models.flux_edit.needs import Mode


@dataclass(frozen=True, slots=True)
class Focus:
    """A point and a radius, as shares of the picture; see `focus_map`."""

    center_x: float
    center_y: float
    radius: float
    published: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """A control map of the picture's size, (H, W, 3) uint8, by name (line, depth), and how much it counts."""

    name: str
    map: np.ndarray
    strength: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn of a request, all of one size (width, height), which is a multiple of 16."""

    mode: Mode
    size: tuple[int, int]
    steps: int = 28
    guidance_scale: float = 3.5
    strength: float = 0.8  # 1: nothing of the picture's pixels stays
    picture: np.ndarray | None = None  # (H, W, 3) uint8; all modes but variation
    mask: np.ndarray | None = None  # (H, W) bool, True where it is drawn anew
    paste: bool = True  # with a mask: pixels outside of it are the picture's own
    controls: tuple[Control, ...] = ()
