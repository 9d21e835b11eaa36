"""How fast paired metrics are in batches, against one pair at a time, at equal values.

    python -m benchmarks.image_metrics            1,000 pairs of 128 x 128 pixels, the six published metrics
    python -m benchmarks.image_metrics --pairs 100 --side 512

One pair at a time: SSIM, MSE, histogram, perceptual hash, sharpness and colour (CIEDE2000 of pixels, moments), each in
the steps that scikit-image 0.26 and ImageHash 4.3 take, on scipy and numpy. Every value must agree within 1e-9. Times
are CPU time of one thread on either side.
"""

import argparse
import time
from collections.abc import Callable, Sequence

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
    """structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)"""
    from scipy.ndimage import gaussian_filter

    x, y = luma(ours), luma(theirs)
    a, b, aa, bb, ab = (gaussian_filter(field, sigma=1.5, truncate=3.5) for field in (x, y, x * x, y * y, x * y))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    upper = (2 * a * b + c1) * (2 * (ab - a * b) + c2)
    return float((upper / ((a**2 + b**2 + c1) * (aa - a * a + bb - b * b + c2)))[5:-5, 5:-5].mean())


def mse(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.mean((ours.astype(np.float64) - theirs.astype(np.float64)) ** 2))


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
    """1 - (imagehash.phash(a) - imagehash.phash(b)) / 64"""
    from PIL import Image
    from scipy.fftpack import dct

    bits = []
    for image in (ours, theirs):
        small = np.asarray(Image.fromarray(image).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
        low = dct(dct(small, axis=0), axis=1)[:8, :8]
        bits.append(low > np.median(low))
    return 1 - np.count_nonzero(bits[0] != bits[1]) / 64


def sharpness_ratio(ours: np.ndarray, theirs: np.ndarray) -> float:
    from scipy.ndimage import laplace

    return float(laplace(luma(ours), mode="mirror").var() / laplace(luma(theirs), mode="mirror").var())


def lab(image: np.ndarray) -> np.ndarray:
    """skimage.color.rgb2lab"""
    values = image / 255.0
    mask = values > 0.04045
    values[mask] = np.power((values[mask] + 0.055) / 1.055, 2.4)
    values[~mask] /= 12.92
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    values = values @ np.array(matrix).T / np.array([0.95047, 1.0, 1.08883])
    mask = values > 0.008856
    values[mask] = np.cbrt(values[mask])
    values[~mask] = 7.787 * values[~mask] + 16.0 / 116.0
    x, y, z = values[..., 0], values[..., 1], values[..., 2]
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def delta_e(ours: np.ndarray, theirs: np.ndarray) -> float:
    """skimage.color.deltaE_ciede2000, averaged"""
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(lab(image), -1, 0) for image in (ours, theirs))
    chroma = 0.5 * (np.hypot(a1, b1) + np.hypot(a2, b2))
    scale = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    c1, c2 = np.hypot(a1 * scale, b1), np.hypot(a2 * scale, b2)
    h1, h2 = np.arctan2(b1, a1 * scale) % (2 * np.pi), np.arctan2(b2, a2 * scale) % (2 * np.pi)
    middle = (0.5 * (l1 + l2) - 50) ** 2
    lightness = (l2 - l1) / (1 + 0.015 * middle / np.sqrt(20 + middle))
    chroma = 0.5 * (c1 + c2)
    chromatic = (c2 - c1) / (1 + 0.045 * chroma)
    turn, total, both = h2 - h1, h1 + h2, c1 * c2
    turn[turn > np.pi] -= 2 * np.pi
    turn[turn < -np.pi] += 2 * np.pi
    far = np.abs(h2 - h1) > np.pi
    total[far & (total < 2 * np.pi)] += 2 * np.pi
    total[far & (h1 + h2 >= 2 * np.pi)] -= 2 * np.pi
    hue = 0.5 * total
    weight = 1 - 0.17 * np.cos(hue - np.deg2rad(30)) + 0.24 * np.cos(2 * hue)
    weight += 0.32 * np.cos(3 * hue + np.deg2rad(6)) - 0.20 * np.cos(4 * hue - np.deg2rad(63))
    across = 2 * np.sqrt(both) * np.sin(turn / 2) / (1 + 0.015 * chroma * weight)
    theta = np.deg2rad(30) * np.exp(-(((np.rad2deg(hue) - 275) / 25) ** 2))
    rotation = -np.sin(2 * theta) * 2 * np.sqrt(chroma**7 / (chroma**7 + 25**7)) * chromatic * across
    return float(np.sqrt(np.maximum(lightness**2 + chromatic**2 + across**2 + rotation, 0)).mean())


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
