"""A batch of images of one size, and what paired metrics derive from them, each once. B images of H x W pixels."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from genloop.data.pixels import to_lab

if TYPE_CHECKING:
    from torch import Tensor

_TO_LUMA = (9798, 19235, 3735)  # BT.601 in 15 bits, as OpenCV has it


class Pixels:
    """Views of images (B, H, W, 3) uint8; those of torch are float64."""

    def __init__(self, images: np.ndarray) -> None:
        assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3, images.shape
        self.images = np.ascontiguousarray(images)

    @cached_property
    def planes(self) -> np.ndarray:
        """(3, B, H, W) uint8"""
        return np.ascontiguousarray(np.moveaxis(self.images, 3, 0))

    @cached_property
    def exact(self) -> "Tensor":
        """(3, B, H, W) in [0, 255]"""
        import torch

        return torch.from_numpy(self.planes).double()

    @cached_property
    def luma(self) -> "Tensor":
        """(B, H, W) whole numbers in [0, 255]"""
        import torch

        red, green, blue = (plane.astype(np.int32) * share for plane, share in zip(self.planes, _TO_LUMA))
        return torch.from_numpy((red + green + blue + (1 << 14)) >> 15).double()

    @cached_property
    def lab(self) -> np.ndarray:
        """(3, B, H, W): CIE L*a*b* of sRGB, white point D65"""
        return to_lab(self.planes)

    @cached_property
    def moments(self) -> np.ndarray:
        """(B, 9): mean, standard deviation and signed cube root of the third moment of L*, a* and b*"""
        lab = self.lab.reshape(3, len(self.images), -1)
        mean = lab.mean(axis=2)
        centred = lab - mean[..., None]
        squares = centred * centred
        third = (squares * centred).mean(axis=2)
        return np.concatenate([mean, np.sqrt(squares.mean(axis=2)), np.cbrt(third)]).T

    @cached_property
    def histogram(self) -> np.ndarray:
        """(B, 512): shares of the 8 x 8 x 8 bins of hue, saturation and value, quantised as OpenCV does for 8 bits"""
        hue, saturation, value = _hsv(self.planes)
        bins = (hue * 8 // 180) * 64 + (saturation >> 5) * 8 + (value >> 5)
        num, size = len(bins), bins[0].size
        places = bins.reshape(num, -1) + 512 * np.arange(num)[:, None]
        return np.bincount(places.ravel(), minlength=512 * num).reshape(num, 512) / size


def _hsv(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3, B, H, W) uint8 -> hue in [0, 180), saturation and value in [0, 255], (B, H, W) each, in whole numbers."""
    red, green, blue = (plane.astype(np.int32) for plane in planes)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    divisor = np.maximum(np.arange(256), 1)
    of_value = np.rint((255 << 12) / divisor).astype(np.int32)  # 12 bits behind the point
    of_spread = np.rint((180 << 12) / (6.0 * divisor)).astype(np.int32)
    saturation = (spread * of_value[value] + 2048) >> 12
    sector = np.where(
        value == red,
        green - blue,
        np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = (sector * of_spread[spread] + 2048) >> 12
    return np.where(hue < 0, hue + 180, hue), saturation, value
