"""Paired metrics of structure: SSIM, MS-SSIM, GMSD, MSE, PSNR, perceptual hash, sharpness, slope of the spectrum.

Every function takes the candidates and their references, B images each, and returns (B,) float64; NaN where a pair has
no value.
"""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from genloop.metrics.paired.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 11  # pixels of SSIM's Gaussian window
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA, _C1, _C2 = 1.5, (0.01 * 255) ** 2, (0.03 * 255) ** 2
_HASH_SIDE, _HASH_BITS = 32, 8
_GMSD_C = 170.0
_TILE = 24  # results a product with the band matrix


def mse(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Mean squared difference of channels in [0, 255]."""
    difference = np.subtract(candidates.images, references.images, dtype=np.int16).reshape(len(candidates.images), -1)
    exact = difference.astype(np.float64)
    return np.einsum("bp,bp->b", exact, exact) / exact.shape[1]


def psnr(candidates: Pixels, references: Pixels) -> np.ndarray:
    """10 log10(255^2 / MSE) in dB; NaN for equal images, where it is infinite."""
    errors = mse(candidates, references)
    return 10 * np.log10(255**2 / np.where(errors > 0, errors, np.nan))


def ssim(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Structural similarity of luma (Wang et al. 2004): Gaussian window of 11 x 11, sigma 1.5, its full reach only."""
    return _ssim_parts(candidates.luma, references.luma)[0].numpy()


def ms_ssim(scales: int) -> Callable[[Pixels, Pixels], np.ndarray]:
    """SSIM over `scales` scales (Wang et al. 2003); the published weights, of fewer than 5 scales made to sum to 1."""

    def of(candidates: Pixels, references: Pixels) -> np.ndarray:
        import torch
        from torch.nn.functional import avg_pool2d

        x, y = candidates.luma, references.luma
        weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
        found = torch.ones(len(x), dtype=torch.float64)
        for place, weight in enumerate(weights.tolist()):
            whole, contrast = _ssim_parts(x, y)
            found *= (whole if place == scales - 1 else contrast).clamp(min=0).pow(weight)
            if place < scales - 1:
                x, y = avg_pool2d(x[:, None], 2)[:, 0], avg_pool2d(y[:, None], 2)[:, 0]
        return found.numpy()

    return of


def gmsd(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Spread of the similarity of gradients of luma at half size (Xue et al. 2014); 0 for equal images."""
    a, b = _gradients(candidates.luma), _gradients(references.luma)
    similar = (2 * a * b + _GMSD_C) / (a * a + b * b + _GMSD_C)
    return similar.flatten(1).std(dim=1, correction=0).numpy()


def phash(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Share of equal bits of 64-bit perceptual hashes; unrelated images have 0.5."""
    return (_hashes(candidates) == _hashes(references)).mean(axis=1)


def sharpness_ratio(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Variance of the Laplacian of luma, candidate by reference; 1 is best. NaN where the reference has none."""
    ours, theirs = _laplacian_variance(candidates.luma), _laplacian_variance(references.luma)
    return np.where(theirs > 0, ours / np.where(theirs > 0, theirs, 1), np.where(ours > 0, np.nan, 1.0))


def spectrum_slope(candidates: Pixels, references: Pixels) -> np.ndarray:
    """|difference| of the slopes of log power against log frequency, averaged over directions; NaN for a flat image."""
    return np.abs(_slopes(candidates.luma) - _slopes(references.luma))


def _ssim_parts(x: "Tensor", y: "Tensor") -> "tuple[Tensor, Tensor]":
    """Luma (B, H, W) twice -> means of SSIM and of its contrast and structure, (B,) each"""
    import torch

    mean_x, mean_y, squares, product = _windowed(x.numpy(), y.numpy())
    means = mean_x * mean_y
    product -= means
    mean_x *= mean_x
    mean_y *= mean_y
    mean_x += mean_y
    squares -= mean_x
    contrast = np.divide(2 * product + _C2, squares + _C2, out=product)
    whole = (2 * means + _C1) / (mean_x + _C1)
    whole *= contrast
    return torch.from_numpy(whole.mean(axis=(1, 2))), torch.from_numpy(contrast.mean(axis=(1, 2)))


def _windowed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(B, H, W) twice -> (4, B, H - 10, W - 10): Gaussian means of x, y, x^2 + y^2 and x y, of whole windows only.

    Two products with a band matrix, rows by rows of `_TILE` results: faster than sums of shifted images.
    """
    reach, (num, height, width) = WINDOW - 1, x.shape
    down, across = -(-(height - reach) // _TILE), -(-(width - reach) // _TILE)
    fields = np.zeros((4, num, down * _TILE + reach, across * _TILE + reach))
    inner = fields[:, :, :height, :width]
    inner[0], inner[1] = x, y
    np.multiply(x, x, out=inner[2])
    inner[2] += y * y
    np.multiply(x, y, out=inner[3])
    rows = fields.reshape(-1, fields.shape[3])
    smooth = np.empty((*fields.shape[:3], across * _TILE))
    tiles = sliding_window_view(rows, _TILE + reach, axis=1)[:, ::_TILE].swapaxes(0, 1)  # (across, R, T + 10)
    np.matmul(tiles, _band(), out=smooth.reshape(len(rows), across, _TILE).swapaxes(0, 1))
    tiles = sliding_window_view(smooth, _TILE + reach, axis=2)[:, :, ::_TILE].swapaxes(3, 4)
    found = np.matmul(_band().T, tiles).reshape(4, num, down * _TILE, across * _TILE)
    return found[:, :, : height - reach, : width - reach]


@cache
def _band() -> np.ndarray:
    """(T + 10, T): column t holds the Gaussian window from row t on"""
    window = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / _SIGMA) ** 2)
    found = np.zeros((_TILE + WINDOW - 1, _TILE))
    for place in range(_TILE):
        found[place : place + WINDOW, place] = window / window.sum()
    return found


def _gradients(luma: "Tensor") -> "Tensor":
    """(B, H, W) -> Prewitt gradients of the image at half size, as published: zeros around it"""
    import torch
    from torch.nn.functional import pad

    padded = pad(luma, (0, 1, 0, 1))
    mean = (padded[:, :-1, :-1] + padded[:, 1:, :-1] + padded[:, :-1, 1:] + padded[:, 1:, 1:]) / 4
    small = pad(mean[:, ::2, ::2], (1, 1, 1, 1))
    rows = small[:, :-2] + small[:, 1:-1] + small[:, 2:]
    columns = small[:, :, :-2] + small[:, :, 1:-1] + small[:, :, 2:]
    across, down = (rows[:, :, 2:] - rows[:, :, :-2]) / 3, (columns[:, 2:] - columns[:, :-2]) / 3
    return torch.sqrt(across * across + down * down)


def _hashes(pixels: Pixels) -> np.ndarray:
    """(B, 64) bool: which low frequencies of a 32 x 32 copy are above their median, as ImageHash's phash"""
    from PIL import Image
    from scipy.fft import dctn

    side = (_HASH_SIDE, _HASH_SIDE)
    copies = [Image.fromarray(image).convert("L").resize(side, Image.Resampling.LANCZOS) for image in pixels.images]
    waves = dctn(np.stack([np.asarray(copy, dtype=np.float64) for copy in copies]), axes=(1, 2))
    low = waves[:, :_HASH_BITS, :_HASH_BITS].reshape(len(copies), -1)
    return low > np.median(low, axis=1, keepdims=True)


def _laplacian_variance(luma: "Tensor") -> np.ndarray:
    """(B, H, W) -> (B,); the image is mirrored at its edges, which are not repeated. Sums of whole numbers: exact."""
    whole = luma.numpy().astype(np.int16)
    around = np.pad(whole, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    found = around[:, :-2, 1:-1] + around[:, 2:, 1:-1]
    found += around[:, 1:-1, :-2]
    found += around[:, 1:-1, 2:]
    found -= 4 * whole
    flat = found.reshape(len(found), -1).astype(np.float64)
    squares, mean = np.einsum("bp,bp->b", flat, flat) / flat.shape[1], flat.sum(axis=1) / flat.shape[1]
    return squares - mean * mean


def _slopes(luma: "Tensor") -> np.ndarray:
    """(B, H, W) -> (B,): least squares over whole frequencies from 1 to half the shorter side, Hann window"""
    values = luma.numpy()
    height, width = values.shape[1:]
    values = values - values.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.fft2(values * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]) * min(height, width)
    ring = np.rint(frequency).astype(int).ravel()
    last = min(height, width) // 2
    kept = (ring >= 1) & (ring <= last)
    counts = np.bincount(ring[kept], minlength=last + 1)[1:]
    rows = power.reshape(len(values), -1)[:, kept]
    means = np.stack([np.bincount(ring[kept], row, minlength=last + 1)[1:] / counts for row in rows])
    is_flat = means.max(axis=1) < 1e-9
    logs = np.log(np.where(is_flat[:, None], 1.0, np.maximum(means, 1e-12)))
    steps = np.log(np.arange(1, last + 1))
    steps = steps - steps.mean()
    return np.where(is_flat, np.nan, (logs * steps).sum(axis=1) / (steps * steps).sum())
