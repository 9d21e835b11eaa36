"""What a colour classifier sees of a detected object, cut as GenEval does it (Ghosh et al. 2023), bit for bit.

Everything outside the object's mask is painted over, then the image is cut to the object's box. The coordinates are
rounded to even at one half, as float32; what lies outside the image is black.
"""

from functools import cache

import numpy as np

from genloop.records import Detection
from genloop.registry import require

ORIGINAL = "original"  # the background that is left as it is
_LARGEST = 2**15  # pixels along a side of a crop


def crop(image: np.ndarray, detection: Detection, *, background: str = "#999", to_box: bool = True) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB -> what is left of it, (h, w, 3) uint8; h or w may be 0.

    Without a mask nothing is painted over; `to_box=False` keeps the whole image. ValueError for a mask of another size,
    a box that ends before it starts, or one that is not finite.
    """
    height, width = image.shape[:2]
    mask = detection.mask
    if mask is not None and mask.shape != (height, width):
        raise ValueError(
            f"a mask of {detection.class_name!r} is {mask.shape}, its image {(height, width)}; they have to be equal"
        )
    left, top, right, bottom = _rounded(detection) if to_box else (0, 0, width, height)
    cut = np.zeros((bottom - top, right - left, 3), dtype=np.uint8)
    rows, columns = (slice(max(a, 0), max(b, 0)) for a, b in ((top, bottom), (left, right)))
    seen = image[rows, columns]
    if mask is not None and background != ORIGINAL:
        seen = np.where(mask[rows, columns, None], seen, np.array(color_value(background), dtype=np.uint8))
    y, x = max(-top, 0), max(-left, 0)
    cut[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    return cut


@cache
def color_value(background: str) -> tuple[int, int, int]:
    """A colour's name or hexadecimal digits -> red, green, blue; ValueError when Pillow knows no such colour."""
    try:
        red, green, blue, *_ = require("PIL.ImageColor").getrgb(background)
    except ValueError:
        raise ValueError(
            f"unknown colour {background!r}; use {ORIGINAL}, a name such as red, or digits such as '#999'"
        ) from None
    return red, green, blue


def _rounded(detection: Detection) -> tuple[int, int, int, int]:
    """left, top, right, bottom in pixels."""
    box = np.asarray(detection.box, dtype=np.float32)
    if not (np.isfinite(box).all() and (box[:2] <= box[2:]).all() and (box[2:] - box[:2]).max() <= _LARGEST):
        raise ValueError(
            f"a box of {detection.class_name!r} is {box.tolist()}; "
            f"x1 <= x2 and y1 <= y2, all finite, at most {_LARGEST} pixels apart, are needed"
        )
    left, top, right, bottom = np.rint(box).astype(int).tolist()
    return left, top, right, bottom
