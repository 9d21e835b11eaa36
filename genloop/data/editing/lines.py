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

    Blurred with sigma 6, minus the image, the least over channels, scaled so that the median of what is above 8 is 127
    (controlnet_aux's LineartStandardDetector).
    """
    return _map(_darker(image, sigma=6.0, threshold=8.0))


def with_thin_lines(edges: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 and (H, W, 3) uint8 -> (H, W, 3) uint8: the edges, screened with the line art of sigma 2 (Anyline).

    Specks of fewer than 12 pixels, connected along the sides, are left out. Where both have something the released code
    lets bytes wrap around; here the lighter blend is 255 at most.
    """
    morphology = require("skimage.morphology", "editing")
    thin = _darker(image, sigma=2.0, threshold=3.0).clip(0, 255).astype(np.uint8)
    kept = morphology.remove_small_objects(thin > 0, max_size=11, connectivity=1)
    return _map(255 - (255.0 - edges) * (255.0 - thin * kept) / 255)


def _darker(image: np.ndarray, *, sigma: float, threshold: float) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) from 0: how much darker than its surroundings, the median above `threshold` at 127."""
    filters = require("skimage.filters", "editing")
    pixels = image.astype(np.float64)
    blurred = filters.gaussian(pixels, sigma=sigma, mode="mirror", channel_axis=-1, preserve_range=True, truncate=4.0)
    darker = np.min(blurred - pixels, axis=2).clip(0, 255)
    strong = darker[darker > threshold]
    return np.asarray(darker * 127 / max(16.0, float(np.median(strong)) if strong.size else 0.0))


def _map(values: np.ndarray) -> np.ndarray:
    """(H, W) in 0 .. 255 -> (H, W, 3) uint8"""
    return np.repeat(values.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


LINES = {"canny": canny_lines, "lineart": lineart_lines}
