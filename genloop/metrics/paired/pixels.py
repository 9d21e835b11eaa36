"""A batch of images of one size, and what paired metrics derive from them, each once. B images of H x W pixels."""

from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from genloop.data.pixels import blocks, to_lab

if TYPE_CHECKING:
    from torch import Tensor

_TO_LUMA = (9798, 19235, 3735)  # BT.601 in 15 bits, as OpenCV has it
_SECTORS = 6 * 255 + 1  # of hue: from -spread to 5 spread


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
        third = np.einsum("cbp,cbp->cb", squares, centred) / lab.shape[2]
        return np.concatenate([mean, np.sqrt(squares.mean(axis=2)), np.cbrt(third)]).T

    @cached_property
    def histogram(self) -> np.ndarray:
        """(B, 512): shares of the 8 x 8 x 8 bins of hue, saturation and value, quantised as OpenCV does for 8 bits"""
        num, size = len(self.images), self.planes[0, 0].size
        planes, bins = self.planes.reshape(3, -1), np.empty(num * size, dtype=np.intp)
        for block in blocks(len(bins)):
            bins[block] = _bins(planes[:, block])
        return np.stack([np.bincount(one, minlength=512) for one in bins.reshape(num, size)]) / size


def _bins(planes: np.ndarray) -> np.ndarray:
    """(3, P) uint8 -> (P,) in [0, 512): 64 hue + 8 saturation + value"""
    red, green, blue = planes.astype(np.int16)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    sector = np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sector = np.where(value == red, green - blue, sector)
    of_hue, of_rest = _bin_tables()
    row = spread.astype(np.intp)
    found = of_rest.take((row << 8) + value)
    row *= _SECTORS
    row += sector
    found += of_hue.take(row + 255)
    return found


@cache
def _bin_tables() -> tuple[np.ndarray, np.ndarray]:
    """64 hue bin by [spread, sector + 255], 8 saturation bin + value bin by [spread, value], both flat and small"""
    spread, divisor = np.arange(256)[:, None], np.maximum(np.arange(256), 1)
    of_value = np.rint((255 << 12) / divisor).astype(np.int64)  # 12 bits behind the point
    of_spread = np.rint((180 << 12) / (6.0 * divisor)).astype(np.int64)
    hue = ((np.arange(_SECTORS) - 255) * of_spread[spread] + 2048) >> 12
    hue = np.where(hue < 0, hue + 180, hue)
    saturation = np.minimum((spread * of_value + 2048) >> 12, 255)  # above only where no colour is
    rest = (saturation >> 5) * 8 + (np.arange(256) >> 5)
    return (hue * 8 // 180 * 64).astype(np.int16).ravel(), rest.astype(np.int16).ravel()
