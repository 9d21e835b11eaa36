"""Faults that are put into clean images: exposure, contrast, colour cast, noise and blur, in three bins of severity.

An image with a fault keeps a hidden label (`Fault`): the corpus knows what is wrong without measuring it, and says
how often the measured diagnosis finds it. H, W = pixels.
"""

from collections.abc import Callable, Mapping

import numpy as np

from genloop.data.irg.diagnose import CLIPPED
from genloop.data.irg.features import measure
from genloop.data.irg.record import Fault, Intent, Issue

NUM_BINS = 3
_RANGES: Mapping[Issue, tuple[float, float, float, float]] = {  # edges of the bins, mild to severe
    "underexposed": (1.6, 2.0, 2.5, 3.2),  # gamma
    "overexposed": (1.35, 1.6, 1.9, 2.4),  # gain; highlights clip
    "low_contrast": (0.5, 0.38, 0.27, 0.15),  # factor of the distance from the mean
    "color_cast": (0.14, 0.2, 0.28, 0.4),  # part by which a channel is raised or lowered
    "noise": (8.0, 13.0, 20.0, 30.0),  # standard deviation in levels of 8 bits
    "blur": (0.9, 1.3, 2.0, 4.0),  # sigma in pixels of an image of 128
}
FAULTS: tuple[Issue, ...] = tuple(_RANGES)
_BLURRED = 2  # bin from which sharpening does not bring detail back


def kinds_for(intent: Intent) -> tuple[Issue, ...]:
    """The faults that an image of this intent can have: dark is no fault where it is wanted, nor is bright."""
    wanted: Mapping[Intent, Issue] = {"dark": "underexposed", "bright": "overexposed"}
    return tuple(kind for kind in FAULTS if kind != wanted.get(intent))


def inject(image: np.ndarray, kind: Issue, level: int, rng: np.random.Generator) -> tuple[np.ndarray, Fault]:
    """(H, W, 3) uint8 and a bin of severity 0 to 2 -> the image with the fault, and its label."""
    part = float(rng.random())
    low, high = _RANGES[kind][level : level + 2]
    spoilt = _SPOIL[kind](image / 255, low + part * (high - low), rng)
    made = np.rint(np.clip(spoilt, 0, 1) * 255).astype(np.uint8)
    lost = kind == "blur" and level >= _BLURRED
    if kind == "overexposed":
        lost = measure(made).clip_hi > max(CLIPPED, measure(image).clip_hi + 0.05)
    severity = round((level + part) / NUM_BINS, 3)
    return made, Fault(kind=kind, severity=severity, bin=level, is_reversible=not lost)


def _underexpose(image: np.ndarray, gamma: float, rng: np.random.Generator) -> np.ndarray:
    return image**gamma


def _overexpose(image: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    return image * gain


def _flatten(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean()
    return mean + factor * (image - mean)


def _tint(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Warm, cold, green or magenta."""
    signs = np.array([(1, 0.1, -1), (-1, -0.1, 1), (-0.7, 1, -0.7), (0.7, -1, 0.7)])[rng.integers(4)]
    return image * (1 + amount * signs)


def _add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, sigma / 255, image.shape)


def _blur(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    scale = sigma * min(image.shape[:2]) / 128
    return gaussian_filter(image, (scale, scale, 0))


_SPOIL: Mapping[Issue, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "underexposed": _underexpose,
    "overexposed": _overexpose,
    "low_contrast": _flatten,
    "color_cast": _tint,
    "noise": _add_noise,
    "blur": _blur,
}
