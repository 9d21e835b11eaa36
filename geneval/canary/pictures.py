"""The canary's pictures: drawn by formula, the same bytes everywhere, so that nothing has to be shipped or trusted.

Two hold things that detectors of everyday objects know (a stop sign, a ball, a clock), one holds small coloured tiles,
one noise; their sizes differ, and one is not square. Noise is the raw stream of a keyed counter-based generator.
"""

import numpy as np

from genloop.records import COLORS, PALETTE, Detection

GRAY = (150, 150, 150)
PATCH = 64  # pixels along a side of a colour patch
CLASS = "sports ball"  # what the patches are called where a class has to be named


def pictures() -> dict[str, np.ndarray]:
    """{name: (H, W, 3) uint8} of what a detector is shown."""
    return {"sign": _sign(), "ball": _ball(), "tiles": _tiles(), "noise": noise(96, 128, key=7)}


def color_requests() -> dict[str, tuple[np.ndarray, list[Detection]]]:
    """{name: image and detections} for a colour classifier: ten discs in their masks, ten plain squares."""
    discs = np.empty((2 * PATCH, 5 * PATCH, 3), dtype=np.uint8)
    discs[:] = GRAY
    squares = discs.copy()
    ours, plain = [], []
    for place, name in enumerate(COLORS):
        top, left = place // 5 * PATCH, place % 5 * PATCH
        mask = np.zeros(discs.shape[:2], dtype=bool)
        mask[top : top + PATCH, left : left + PATCH] = _disc(PATCH, PATCH, PATCH / 2, PATCH / 2, 0.45 * PATCH)
        discs[mask] = PALETTE[name]
        inner = slice(top + 8, top + PATCH - 8), slice(left + 8, left + PATCH - 8)
        squares[inner] = PALETTE[name]
        ours.append(Detection(CLASS, 1.0, _box(*np.where(mask)), mask, int(mask.sum())))
        plain.append(Detection(CLASS, 1.0, (left + 8.0, top + 8.0, left + PATCH - 8.0, top + PATCH - 8.0)))
    return {"discs": (discs, ours), "squares": (squares, plain)}


def _box(rows: np.ndarray, columns: np.ndarray) -> tuple[float, float, float, float]:
    """The box around pixels (n,) and (n,)."""
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def noise(height: int, width: int, *, key: int) -> np.ndarray:
    """-> (height, width, 3) uint8, uniform"""
    words = np.random.Philox(key=key).random_raw((height * width * 3 + 7) // 8)
    return words.astype("<u8").view(np.uint8)[: height * width * 3].reshape(height, width, 3)


def _sign() -> np.ndarray:
    """A red octagon with a white rim on a post, before a sky that darkens: 256 x 256."""
    image = _sky(256, 256)
    image[180:, 120:136] = (90, 90, 95)
    y, x = np.mgrid[:256, :256]
    reach = np.maximum(np.maximum(abs(x - 128), abs(y - 104)), (abs(x - 128) + abs(y - 104)) / np.sqrt(2))
    image[reach < 88] = PALETTE["white"]
    image[reach < 80] = PALETTE["red"]
    for column in range(4):
        left = 72 + 30 * column
        image[88:120, left : left + 8] = PALETTE["white"]
        image[100:107, left : left + 22] = PALETTE["white"]
    return image


def _ball() -> np.ndarray:
    """An orange ball on a lawn beside a clock's face: 224 x 320."""
    image = _sky(224, 320)
    image[130:] = (70, 140, 60)
    y, x = np.mgrid[:224, :320]
    image[_disc(224, 320, 156, 90, 46)] = PALETTE["orange"]
    seams = (abs(x - 90) < 2) | (abs(y - 156) < 2) | (abs(np.hypot(x - 40, y - 156) - 34) < 2)
    image[seams & _disc(224, 320, 156, 90, 46)] = PALETTE["black"]
    image[_disc(224, 320, 84, 232, 62)] = PALETTE["brown"]
    image[_disc(224, 320, 84, 232, 54)] = PALETTE["white"]
    image[(abs(x - 232) < 3) & (y > 44) & (y < 86)] = PALETTE["black"]
    image[(abs(y - 84) < 3) & (x > 231) & (x < 264)] = PALETTE["black"]
    for hour in range(12):
        angle = hour * np.pi / 6
        image[_disc(224, 320, 84 - 46 * np.cos(angle), 232 + 46 * np.sin(angle), 4)] = PALETTE["black"]
    return image


def _tiles() -> np.ndarray:
    """Squares and rounded squares of 7 pixels in all ten colours on gray: 40 x 64."""
    image = np.empty((40, 64, 3), dtype=np.uint8)
    image[:] = GRAY
    corners = np.zeros((7, 7), dtype=bool)
    corners[[0, 0, 0, 0, 1, 1, 5, 5, 6, 6, 6, 6], [0, 1, 5, 6, 0, 6, 0, 6, 0, 1, 5, 6]] = True
    for place, name in enumerate(COLORS):
        top, left = 4 + place // 5 * 20, 4 + place % 5 * 12
        tile = image[top : top + 7, left : left + 7]
        tile[~corners if place % 2 else np.ones_like(corners)] = PALETTE[name]
    return image


def _sky(height: int, width: int) -> np.ndarray:
    """A gradient from light to dark blue-gray."""
    share = np.linspace(0, 1, height)[:, None, None]
    top, bottom = np.array([200, 215, 235.0]), np.array([120, 140, 170.0])
    return np.broadcast_to(top + share * (bottom - top), (height, width, 3)).astype(np.uint8).copy()


def _disc(height: int, width: int, y: float, x: float, radius: float) -> np.ndarray:
    """-> (height, width) bool"""
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows + 0.5 - y, columns + 0.5 - x) < radius
