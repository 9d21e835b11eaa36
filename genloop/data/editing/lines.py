"""Line maps without weights: Canny edges, and the standard line art of ControlNet's annotators. H, W = pixels."""

import numpy as np

from genloop.registry import require


def canny_lines(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) uint8, white edges on black (Canny 1986); thresholds follow from the median luma."""
    color, feature = require("skimage.color", "editing"), require("skimage.feature", "editing")
    luma = color.rgb2gray(image)  # (H, W) in [0, 1]
    median = float(np.median(luma))
    edges = feature.canny(luma, sigma=1.0, low_threshold=0.67 * median * 0.25, high_threshold=1.33 * median * 0.25)
    return _map(edges * 255.0)


def lineart_lines(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W, 3) uint8: how much darker a pixel is than its surroundings, in the darkest channel.

    Blurred with sigma 6, minus the image, the least over channels, what is above 8 scaled so that its median is 127
    (controlnet_aux's LineartStandardDetector).
    """
    filters = require("skimage.filters", "editing")
    pixels = image.astype(np.float64)
    blurred = filters.gaussian(pixels, sigma=6.0, channel_axis=-1, preserve_range=True, truncate=3.0)
    darker = np.min(blurred - pixels, axis=2).clip(0, 255)
    strong = darker[darker > 8]
    scale = 127 / max(16.0, float(np.median(strong))) if strong.size else 0.0
    return _map(darker * scale)


def _map(values: np.ndarray) -> np.ndarray:
    """(H, W) in 0 .. 255 -> (H, W, 3) uint8"""
    return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


LINES = {"canny": canny_lines, "lineart": lineart_lines}
