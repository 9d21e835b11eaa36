"""Numbers of single pixels that several measurements share: luminance, saturation, CIE L*a*b*. H, W = pixels."""

import numpy as np

_LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees


def luminance(image: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...), in the unit of the channels."""
    return image @ _LUMA


def saturation(image: np.ndarray) -> float:
    """(H, W, 3) in [0, 1] -> mean saturation, the S of HSV."""
    high, low = image.max(axis=-1), image.min(axis=-1)
    return float(np.divide(high - low, high, out=np.zeros_like(high), where=high > 0).mean())


def to_lab(planes: np.ndarray) -> np.ndarray:
    """(3, ...) uint8 -> (3, ...): CIE L*a*b* of sRGB, white point D65"""
    level = np.arange(256) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    light = linear[planes].reshape(3, -1)
    share = (_TO_XYZ / _WHITE[:, None]) @ light
    root = np.cbrt(share)
    dark = share <= 0.008856
    root[dark] = 7.787 * share[dark] + 16 / 116
    x, y, z = root.reshape(planes.shape)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
