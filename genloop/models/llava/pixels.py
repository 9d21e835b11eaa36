"""Images on their way into the vision tower, as LLaVA-OneVision was trained: PIL's bicubic, [-1, 1].

H, W = pixels of an image, S = of a tile, K = tiles. The pixels are those of the published code bit for bit.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from genloop.registry import require

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = (127, 127, 127)  # the tower's mean, 0.5, in whole numbers
_BLACK = (0, 0, 0)
_SCALE = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def pad_tile(image: np.ndarray, size: int) -> Tensor:
    """(H, W, 3) uint8 -> (3, S, S): padded with grey to a square, then resized."""
    height, width = image.shape[:2]
    side = max(height, width)
    return _normalized(_resized(_on_canvas(_picture(image), side, side, _GREY), size, size))


def anyres_tiles(image: np.ndarray, size: int, pinpoints: Sequence[tuple[int, int]]) -> Tensor:
    """(H, W, 3) uint8 -> (1 + K, 3, S, S): the whole image squeezed into one tile, then K tiles in reading order.

    The tiles cut up the picture of one of the (height, width) `pinpoints`, in which the image keeps its proportions.
    """
    picture = _picture(image)
    height, width = best_resolution(image.shape[:2], pinpoints)
    scale_w, scale_h = width / picture.width, height / picture.height
    if scale_w < scale_h:
        fitted = _resized(picture, width, min(int(np.ceil(picture.height * scale_w)), height))
    else:
        fitted = _resized(picture, min(int(np.ceil(picture.width * scale_h)), width), height)
    canvas = _on_canvas(fitted, width, height, _BLACK)
    boxes = [(x, y, x + size, y + size) for y in range(0, height, size) for x in range(0, width, size)]
    tiles = [_resized(picture, size, size), *(canvas.crop(box) for box in boxes)]
    return torch.stack([_normalized(tile) for tile in tiles])


def best_resolution(shape: Sequence[int], pinpoints: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that shows most of an image of `shape` (H, W), and wastes least."""

    def used(pinpoint: tuple[int, int]) -> tuple[int, int]:
        height, width = pinpoint
        scale = min(width / shape[1], height / shape[0])
        shown = min(int(shape[1] * scale) * int(shape[0] * scale), shape[0] * shape[1])
        return shown, shown - width * height

    return max(pinpoints, key=used)


def _picture(image: np.ndarray) -> "Image":
    return require("PIL.Image").fromarray(image)


def _on_canvas(picture: "Image", width: int, height: int, color: tuple[int, int, int]) -> "Image":
    """In the middle of a larger one."""
    if picture.size == (width, height):
        return picture
    canvas = require("PIL.Image").new("RGB", (width, height), color)
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return canvas


def _resized(picture: "Image", width: int, height: int) -> "Image":
    return picture.resize((width, height), require("PIL.Image").Resampling.BICUBIC)


def _normalized(picture: "Image") -> Tensor:
    """-> (3, H, W) in [-1, 1]"""
    return torch.from_numpy(_SCALE[np.asarray(picture)].transpose(2, 0, 1).copy())
