"""The table of paired metrics: name -> what computes it, which values it has, and which is best. No torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genloop.metrics.paired import colour, structure
from genloop.metrics.paired.pixels import Pixels

Compute = Callable[[Pixels, Pixels], np.ndarray]
INFINITE = math.inf
MAX_OCTAVES = 10.0  # a ratio further from 1 counts as this many powers of two


@dataclass(frozen=True, slots=True)
class PairMetric:
    """A number about a candidate and its reference, B pairs at a time -> (B,); NaN where a pair has none.

    `best` is its value for equal images. `ratio`: a number around 1, of which |log2| is what counts. `compute` is None
    where weights bring it.
    """

    compute: Compute | None
    better: Literal["higher", "lower", "ratio"]
    low: float
    high: float
    best: float
    min_side: int = 1  # pixels that images need
    is_symmetric: bool = True

    def merit(self, values: np.ndarray) -> np.ndarray:
        """Values -> numbers of which more is better; 0 or less but for similarities."""
        if self.better == "ratio":
            floor = 2.0**-MAX_OCTAVES
            return -np.abs(np.log2(np.clip(values, floor, 1 / floor)))
        return values if self.better == "higher" else -values

    @property
    def ceiling(self) -> float:
        """The merit of equal images; infinite where it has no bound."""
        return self.best if self.better == "higher" else 0.0


def pair_metrics(scales: int) -> dict[str, PairMetric]:
    """All of them, in the order of tables; MS-SSIM with so many scales."""
    window = structure.WINDOW
    multi = PairMetric(structure.ms_ssim(scales), "higher", 0.0, 1.0, 1.0, min_side=window << (scales - 1))
    return {
        "ssim": PairMetric(structure.ssim, "higher", -1.0, 1.0, 1.0, min_side=window),
        "ms_ssim": multi,
        "gmsd": PairMetric(structure.gmsd, "lower", 0.0, 1.0, 0.0, min_side=4),
        "mse": PairMetric(structure.mse, "lower", 0.0, 255.0**2, 0.0),
        "psnr": PairMetric(structure.psnr, "higher", 0.0, INFINITE, INFINITE),
        "histogram_correlation": PairMetric(colour.histogram_correlation, "higher", -1.0, 1.0, 1.0),
        "histogram_distance": PairMetric(colour.histogram_distance, "lower", 0.0, 1.0, 0.0),
        "phash": PairMetric(structure.phash, "higher", 0.0, 1.0, 1.0),
        "sharpness_ratio": PairMetric(
            structure.sharpness_ratio, "ratio", 0.0, INFINITE, 1.0, min_side=3, is_symmetric=False
        ),
        "delta_e": PairMetric(colour.delta_e, "lower", 0.0, 200.0, 0.0),
        "mean_colour": PairMetric(colour.mean_colour, "lower", 0.0, 200.0, 0.0),
        "colour_moments": PairMetric(colour.colour_moments, "lower", 0.0, 300.0, 0.0),
        "dominant_colours": PairMetric(colour.dominant_colours, "lower", 0.0, 400.0, 0.0),
        "colourfulness": PairMetric(colour.colourfulness, "lower", 0.0, 400.0, 0.0),
        "spectrum_slope": PairMetric(structure.spectrum_slope, "lower", 0.0, 50.0, 0.0, min_side=8),
    }


NAMES = tuple(pair_metrics(1))
