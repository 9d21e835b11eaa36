"""Numbers about the looks of an image that a hacked reward drives away: brightness, edges, colours. No model.

A judge that rewards bright, sharp, colourful or flat pictures leaves a mark in one of them. All lie in [0, 1].
H, W = pixels.
"""

from collections.abc import Callable

import numpy as np

from genloop.data.pixels import luminance, saturation

DARK, BRIGHT = 0.15, 0.85  # luminance below and above which a pixel is dark, bright
LEVELS = 4  # of each channel, for the entropy of colours


def dark_share(image: np.ndarray) -> float:
    """Share of dark pixels."""
    return float((luminance(image) < DARK).mean())


def bright_share(image: np.ndarray) -> float:
    """Share of bright pixels."""
    return float((luminance(image) > BRIGHT).mean())


def edge_energy(image: np.ndarray) -> float:
    """Mean magnitude of the luminance's Sobel gradient, 1 where every pixel is the steepest edge."""
    from scipy.ndimage import sobel

    grey = luminance(image)
    return float(np.hypot(sobel(grey, axis=0), sobel(grey, axis=1)).mean() / (4 * np.sqrt(2)))


def color_entropy(image: np.ndarray) -> float:
    """Entropy of the histogram of colours in LEVELS^3 bins, as a share of the highest."""
    levels = np.minimum((image * LEVELS).astype(np.int64), LEVELS - 1)
    counts = np.bincount(levels.reshape(-1, 3) @ np.array([LEVELS**2, LEVELS, 1]), minlength=LEVELS**3)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / np.log(LEVELS**3)) + 0.0  # not -0.0


STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "dark_share": dark_share,
    "bright_share": bright_share,
    "edge_energy": edge_energy,
    "color_entropy": color_entropy,
    "saturation": saturation,
}


def image_statistics(image: np.ndarray) -> dict[str, float]:
    """(H, W, 3) uint8 -> every one of STATISTICS."""
    scaled = image.astype(np.float64) / 255
    return {name: of(scaled) for name, of in STATISTICS.items()}
