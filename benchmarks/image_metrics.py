"""How fast paired metrics are in batches, against one pair at a time, at equal values.

    python -m benchmarks.image_metrics            1,000 pairs of 128 x 128 pixels, the six published metrics
    python -m benchmarks.image_metrics --pairs 100 --side 512

One pair at a time: functions of scikit-image 0.26 and ImageHash 4.3, of scipy and numpy where these have none. Every
value must agree within 1e-9. Times are CPU time of one thread on either side.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genloop import terminal
from genloop.metrics.paired.maker import PairedMetrics, PairOptions

SIX = ["ssim", "mse", "histogram_correlation", "histogram_distance", "phash", "sharpness_ratio", "delta_e"]
SIX = [*SIX, "colour_moments"]  # eight numbers, of colour and histogram two each


def scene(seed: int, side: int) -> np.ndarray:
    """Waves of colour with noise (H, W, 3) uint8"""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [0.5 + 0.4 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + seed) for _ in range(3)]
    return (np.clip(np.stack(waves, -1) + rng.normal(0, 0.03, (side, side, 3)), 0, 1) * 255).astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """OpenCV's grey of 8 bits"""
    return ((image.astype(int) @ np.array([9798, 19235, 3735]) + (1 << 14)) >> 15).astype(float)


def ssim(ours: np.ndarray, theirs: np.ndarray) -> float:
    from skimage.metrics import structural_similarity

    kept: Any = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    return float(structural_similarity(luma(ours), luma(theirs), **kept))


def mse(ours: np.ndarray, theirs: np.ndarray) -> float:
    from skimage.metrics import mean_squared_error

    return float(mean_squared_error(ours, theirs))


def histogram(image: np.ndarray) -> np.ndarray:
    """512 shares of HSV"""
    pixels = image.astype(int)
    value = pixels.max(axis=-1)
    spread = value - pixels.min(axis=-1)
    red, green, blue = (pixels[..., channel] for channel in range(3))
    table = np.maximum(np.arange(256), 1)
    saturation = (spread * np.rint((255 << 12) / table).astype(int)[value] + 2048) >> 12
    sector = np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    sector = np.where(value == red, green - blue, sector)
    hue = (sector * np.rint((180 << 12) / (6.0 * table)).astype(int)[spread] + 2048) >> 12
    hue = np.where(hue < 0, hue + 180, hue)
    colours = np.stack([hue.ravel(), saturation.ravel(), value.ravel()], axis=1)
    counts, _ = np.histogramdd(colours, bins=(8, 8, 8), range=((0, 180), (0, 256), (0, 256)))
    return counts.ravel() / counts.sum()


def histogram_correlation(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.corrcoef(histogram(ours), histogram(theirs))[0, 1])


def histogram_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.sqrt(max(0.0, 1 - np.sqrt(histogram(ours) * histogram(theirs)).sum())))


def phash(ours: np.ndarray, theirs: np.ndarray) -> float:
    import imagehash
    from PIL import Image

    return 1 - (imagehash.phash(Image.fromarray(ours)) - imagehash.phash(Image.fromarray(theirs))) / 64


def sharpness_ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    from scipy.ndimage import laplace  # that of scikit-image has other edges

    return float(laplace(luma(ours), mode="mirror").var() / laplace(luma(theirs), mode="mirror").var())


def lab(image: np.ndarray) -> np.ndarray:
    from skimage.color import rgb2lab

    return rgb2lab(image)


def delta_e(ours: np.ndarray, theirs: np.ndarray) -> float:
    from skimage.color import deltaE_ciede2000

    return float(deltaE_ciede2000(lab(ours), lab(theirs)).mean())


def colour_moments(ours: np.ndarray, theirs: np.ndarray) -> float:
    moments = []
    for image in (ours, theirs):
        values = lab(image).reshape(-1, 3)
        third = np.cbrt(((values - values.mean(axis=0)) ** 3).mean(axis=0))
        moments.append(np.concatenate([values.mean(axis=0), values.std(axis=0), third]))
    return float(np.abs(moments[0] - moments[1]).mean())


ONE_BY_ONE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {name: globals()[name] for name in SIX}


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def compared(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], names: Sequence[str]) -> tuple[float, float]:
    """Seconds in batches and one by one; AssertionError where values differ."""
    scorer = PairedMetrics(PairOptions(of=list(names)))
    scorer.compare(ours[:8], theirs[:8])  # imports
    batched, found = seconds(lambda: scorer.compare(ours, theirs))
    [ONE_BY_ONE[name](ours[0], theirs[0]) for name in names]
    alone, expected = seconds(lambda: [{name: ONE_BY_ONE[name](*pair) for name in names} for pair in zip(ours, theirs)])
    for name in names:
        values = [[row[name] for row in side] for side in (found, expected)]  # type: ignore[attr-defined]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-9, atol=1e-9, err_msg=name)
    return batched, alone


def main() -> None:
    """Print a row a metric, and all together, in CPU time."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    distinct = min(options.pairs, 64)
    images = [scene(seed, options.side) for seed in range(distinct + 1)]
    ours = [images[number % distinct] for number in range(options.pairs)]
    theirs = [images[number % distinct + 1] for number in range(options.pairs)]
    terminal.out("| metric | ms a pair, in batches | one by one | times faster |\n|---|---|---|---|")
    for names in [*([name] for name in SIX), SIX]:
        batched, alone = (1e3 * one / options.pairs for one in compared(ours, theirs, names))
        label = names[0] if len(names) == 1 else "all"
        terminal.out(f"| {label} | {batched:.3f} | {alone:.3f} | {alone / batched:.1f} |")


if __name__ == "__main__":
    main()
