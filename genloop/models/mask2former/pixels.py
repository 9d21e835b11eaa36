"""From an image to what Mask2Former sees, as mmdet prepares it, without OpenCV: enlarged or shrunk, normalised, padded.

An image is scaled so that it just fits a long and a short side, and padded at the right and at the bottom to a multiple
of 32. mmdet 3.x resizes numbers and pads normalised pixels with zeros; mmdet 2.x resizes 8-bit pixels in OpenCV's fixed
point and pads them with grey before it normalises. There is no mask: padding reaches every answer.

H, W = pixels of the image, h, w = resized, P, Q = padded.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from genloop.models.mask2former.config import Preparation

Size = tuple[int, int]  # height, width

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB
_MULTIPLE = 32
_GREY = 128.0
_ONE = 2048  # a weight of 1 in fixed point


class Sizes(NamedTuple):
    """(height, width) of an image: its own, resized, padded."""

    original: Size
    resized: Size
    padded: Size


def sizes_of(shape: Size, scale: tuple[int, int]) -> Sizes:
    """`scale`: the (long, short) side that the image is enlarged or shrunk to fit."""
    factor = min(scale[0] / max(shape), scale[1] / min(shape))
    height, width = (max(1, int(side * factor + 0.5)) for side in shape)
    rows, columns = (-(-side // _MULTIPLE) * _MULTIPLE for side in (height, width))
    return Sizes(shape, (height, width), (rows, columns))


def prepare(image: np.ndarray, preparation: Preparation, device: str | torch.device = "cpu") -> Tensor:
    """(H, W, 3) uint8 RGB -> (3, P, Q) float32"""
    sizes = sizes_of(image.shape[:2], preparation.scale)
    own = torch.from_numpy(np.array(image)).to(device)  # (H, W, 3)
    (height, width), (rows, columns) = sizes.resized, sizes.padded
    beside = (0, columns - width, 0, rows - height)
    if preparation.preprocess == "mmdet2":
        pixels = resize_bytes(own, sizes.resized).permute(2, 0, 1).float()
        return _normalised(pad(pixels, beside, value=_GREY))
    return pad(_normalised(resize_floats(own, sizes.resized)), beside)


def resize_floats(image: Tensor, size: Size) -> Tensor:
    """(H, W, 3) uint8 -> (3, h, w) float32, bilinear as in OpenCV, which finds places in double precision."""
    pixels = image.permute(2, 0, 1)[None].double()
    return interpolate(pixels, size, mode="bilinear", align_corners=False)[0].float()


def resize_bytes(image: Tensor, size: Size) -> Tensor:
    """(H, W, 3) uint8 -> (h, w, 3) uint8, bit for bit OpenCV's bilinear resize of 8-bit pixels.

    Weights have 11 bits. At the left and right border the weight of the pixel outside is dropped, at the top and bottom
    the border row stands in for the one outside.
    """
    (height, width), (rows, columns) = image.shape[:2], size
    left, share = _weights(width, columns)
    share = torch.where((left >= 0) & (left < width - 1), share, 0)
    first, second, share = (
        values.to(image.device)
        for values in (left.clamp(0, width - 1), (left + 1).clamp(max=width - 1), share[:, None])
    )
    pixels = image.int()
    sums = pixels[:, first] * (_ONE - share) + pixels[:, second] * share >> 4  # (H, w, 3)
    top, share = _weights(height, rows)
    above, below, share = (
        values.to(image.device) for values in (top.clamp(0, height - 1), (top + 1).clamp(0, height - 1), share)
    )
    share = share[:, None, None]
    mixed = (sums[above] * (_ONE - share) >> 16) + (sums[below] * share >> 16)
    return (mixed + 2 >> 2).to(torch.uint8)


def _weights(source: int, wanted: int) -> tuple[Tensor, Tensor]:
    """For each place wanted: the pixel before it (int64, -1 outside), and how much of the next one (int32, of 2048)."""
    centres = (np.arange(wanted) + 0.5) * (source / wanted) - 0.5
    centres = centres.astype(np.float32)
    before = np.floor(centres)
    share = np.rint((centres - before) * np.float32(_ONE)).astype(np.int32)
    return torch.from_numpy(before.astype(np.int64)), torch.from_numpy(share)


def _normalised(pixels: Tensor) -> Tensor:
    """(3, h, w) float32 in 0..255, which is overwritten"""
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return pixels.sub_(mean).div_(std)
