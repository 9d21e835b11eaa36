"""Three paired metrics of one image and its reference, for loops that compare as they go. H, W = pixels."""

import numpy as np

from genloop.metrics.paired.colour import delta_e
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.structure import psnr, ssim

EQUAL = 100.0  # dB, for images without any difference


def compare_images(image: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """(H, W, 3) uint8 twice -> PSNR in dB (at most 100), SSIM, mean CIEDE2000"""
    ours, theirs = Pixels(image[None]), Pixels(reference[None])
    decibels = float(np.nan_to_num(psnr(ours, theirs)[0], nan=EQUAL))
    return min(EQUAL, decibels), float(ssim(ours, theirs)[0]), float(delta_e(ours, theirs)[0])
