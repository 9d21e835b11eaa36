"""What is measured on an image: exposure, contrast, clipping, colour, sharpness and noise, on its pixels alone."""

import numpy as np

from genloop.data.irg.record import DECIMALS, Features
from genloop.data.pixels import luminance, saturation, to_lab

MIN_SIDE = 8  # pixels; below it noise and sharpness say nothing
VIEWED = 128  # pixels of the longer side, at which detail is measured
_HIGH, _LOW = 254, 1  # levels that count as clipped
_LAPLACIAN_GAIN = 20.0  # variance of the Laplacian of white noise, by its variance: 4^2 + 4


def measure(image: np.ndarray, clip_similarity: float | None = None) -> Features:
    """(H, W, 3) uint8 -> its features, rounded to DECIMALS; ValueError for an image below 8 pixels a side."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image must be (H, W, 3) uint8, found {image.shape} {image.dtype}")
    if min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(f"{image.shape[1]} x {image.shape[0]} pixels, needs {MIN_SIDE} a side")
    scaled = image.astype(np.float64) / 255
    luma = luminance(scaled)
    p1, p99 = np.percentile(luma, (1, 99))
    lab = to_lab(np.moveaxis(image, 2, 0))
    cast_a, cast_b = lab[1].mean(), lab[2].mean()
    sharpness, noise = laplacian_variance(luma * 255), immerkaer(luma * 255)
    found = {
        "brightness": luma.mean(),
        "contrast": luma.std(),
        "p1": p1,
        "p99": p99,
        "clip_hi": (image.max(axis=2) >= _HIGH).mean(),
        "clip_lo": (image.min(axis=2) <= _LOW).mean(),
        "saturation": saturation(scaled),
        "cast_a": cast_a,
        "cast_b": cast_b,
        "cast": np.hypot(cast_a, cast_b),
        "sharpness": sharpness,
        "detail": detail(luma * 255),
        "noise": noise,
        "clip_similarity": clip_similarity,
    }
    return Features(**{k: None if v is None else round(float(v), DECIMALS[k]) + 0.0 for k, v in found.items()})


def detail(luma: np.ndarray) -> float:
    """(H, W) in levels of 8 bits -> variance of the Laplacian without that of noise, by the variance of luma.

    Of an image whose longer side is about VIEWED pixels, to which larger ones are reduced: a picture is as sharp as it
    looks, however many pixels it has.
    """
    step = reduction(luma.shape)
    height, width = (side // step * step for side in luma.shape)
    small = luma[:height, :width].reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    variance = float(small.var())
    own = laplacian_variance(small) - _LAPLACIAN_GAIN * immerkaer(small) ** 2
    return max(0.0, own) / variance if variance >= 1 else 0.0


def reduction(shape: tuple[int, ...]) -> int:
    """(H, W, ...) -> by how much an image is reduced before its detail is measured; 1 if a side would be too short"""
    step = max(1, round(max(shape[:2]) / VIEWED))
    return step if min(shape[:2]) // step >= MIN_SIDE else 1


def laplacian_variance(luma: np.ndarray) -> float:
    """(H, W) -> variance of its Laplacian (4 neighbours), mirrored at the edges, which are not repeated"""
    from scipy.ndimage import laplace

    return float(laplace(luma, mode="mirror").var())


def immerkaer(luma: np.ndarray) -> float:
    """(H, W) -> standard deviation of its noise (Immerkaer 1996): mean magnitude of the difference of two Laplacians"""
    height, width = luma.shape
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) * np.abs(both).sum() / (6 * (width - 2) * (height - 2)))
