"""Numbers of single pixels that several measurements share: luminance, saturation, CIE L*a*b*. H, W = pixels."""

import numpy as np

_LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees
_BLOCK, _SMALL = 1 << 13, 1 << 12  # pixels


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
    places, found = planes.reshape(3, -1), np.empty(planes.shape)
    lab, share_of = found.reshape(3, -1), _TO_XYZ / _WHITE[:, None]
    buffers = [
        np.empty((3, min(_SMALL, places.shape[1]))) for _ in range(3)
    ]  # fresh memory costs more than the numbers
    for block in blocks(places.shape[1], _SMALL):
        light, share, root = (buffer[:, : block.stop - block.start] for buffer in buffers)
        np.take(linear, places[:, block], out=light, mode="clip")
        np.matmul(share_of, light, out=share)
        np.cbrt(share, out=root)
        if share.min() <= 0.008856:
            root = np.where(share > 0.008856, root, 7.787 * share + 16 / 116)
        x, y, z = root
        np.multiply(y, 116, out=lab[0, block])
        np.multiply(np.subtract(x, y, out=x), 500, out=lab[1, block])
        np.multiply(np.subtract(y, z, out=z), 200, out=lab[2, block])
    lab[0] -= 16
    return found


def blocks(num: int, size: int = _BLOCK) -> list[slice]:
    """Slices of `num` pixels; intermediate values of one stay in the second-level cache and off fresh memory."""
    return [slice(start, min(start + size, num)) for start in range(0, num, size)]
