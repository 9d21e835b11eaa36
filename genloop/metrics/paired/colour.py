"""Paired metrics of colour: HSV histograms, CIEDE2000, moments, dominant colours, colourfulness.

Every function takes the candidates and their references, B images each, and returns (B,) float64.
"""

from typing import TYPE_CHECKING

import numpy as np

from genloop.metrics.paired.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

NUM_DOMINANT = 5
_PALETTE_SIDE = 32  # pixels of the copy whose colours are grouped
_ROUNDS = 12  # of k-means
_POW25_7 = 25.0**7


def histogram_correlation(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Pearson's correlation of the bins of HSV histograms; it does not see where a colour lies."""
    x, y = candidates.histogram - 1 / 512, references.histogram - 1 / 512
    return (x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))


def histogram_distance(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Bhattacharyya distance sqrt(1 - BC) of HSV histograms, in [0, 1]."""
    shared = np.sqrt(candidates.histogram * references.histogram).sum(axis=1)
    same = (candidates.histogram == references.histogram).all(axis=1)
    return np.where(same, 0.0, np.sqrt(np.maximum(1 - shared, 0)))


def delta_e(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Mean CIEDE2000 of pixels at the same place."""
    return ciede2000(candidates.lab, references.lab).mean(axis=(1, 2))


def mean_colour(candidates: Pixels, references: Pixels) -> np.ndarray:
    """CIEDE2000 between the mean colours; it does not see the layout."""
    return ciede2000(candidates.lab.mean(axis=(2, 3)), references.lab.mean(axis=(2, 3)))


def colour_moments(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Mean absolute difference of nine moments of L*, a* and b*."""
    return np.abs(candidates.moments - references.moments).mean(axis=1)


def dominant_colours(candidates: Pixels, references: Pixels) -> np.ndarray:
    """Earth mover's distance in L*a*b* between the five dominant colours of each, weighted by their area."""
    import torch

    ours, theirs = (_palettes(torch.from_numpy(side.lab)) for side in (candidates, references))
    return np.array([_mover(*one, *other) for one, other in zip(zip(*ours), zip(*theirs))])


def colourfulness(candidates: Pixels, references: Pixels) -> np.ndarray:
    """|difference| of colourfulness (Hasler and Suesstrunk 2003)."""
    return np.abs(_colourfulness(candidates) - _colourfulness(references))


def ciede2000(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """L*a*b* (3, ...) twice -> (...): the colour difference of CIE 142-2001, weights 1 (Sharma et al. 2005).

    Hues are directions: sines and cosines of the mean hue come from the sum of two unit vectors, without any angle.
    """
    mean_chroma = (np.sqrt(x[1] * x[1] + x[2] * x[2]) + np.sqrt(y[1] * y[1] + y[2] * y[2])) / 2
    stretch = 1.5 - 0.5 * _seventh(mean_chroma)
    (a, b), (c, d) = (x[1] * stretch, x[2]), (y[1] * stretch, y[2])
    chroma_x, chroma_y = np.sqrt(a * a + b * b), np.sqrt(c * c + d * d)
    both, dot, cross = chroma_x * chroma_y, a * c + b * d, a * d - b * c
    near = cross / np.sqrt(np.maximum(both + dot, 1e-300) / 2)
    far = np.where(cross < 0, -1.0, 1.0) * np.sqrt(2 * np.maximum(both - dot, 0))
    hue = np.where(both > 0, np.where(dot > 0, near, far), 0.0)  # 2 sqrt(C C') sin(dh / 2)
    chroma, middle = (chroma_x + chroma_y) / 2, ((x[0] + y[0]) / 2 - 50) ** 2
    weight, turn = _hue_terms(a * chroma_y + c * chroma_x, b * chroma_y + d * chroma_x, (a, b))
    lightness = (y[0] - x[0]) / (1 + 0.015 * middle / np.sqrt(20 + middle))
    chromatic = (chroma_y - chroma_x) / (1 + 0.045 * chroma)
    hue = hue / (1 + 0.015 * chroma * weight)
    rotated = -turn * 2 * _seventh(chroma) * chromatic * hue
    return np.sqrt(np.maximum(lightness**2 + chromatic**2 + hue**2 + rotated, 0))


def _seventh(chroma: np.ndarray) -> np.ndarray:
    """sqrt(C^7 / (C^7 + 25^7))"""
    cube = chroma * chroma * chroma
    power = cube * cube * chroma
    return np.sqrt(power / (power + _POW25_7))


def _hue_terms(x: np.ndarray, y: np.ndarray, first: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A vector at the mean hue -> T and sin(2 theta) of the formula; of opposite hues the mean is at right angles"""
    length = np.sqrt(x * x + y * y)
    is_opposite = length == 0
    upper = np.where((first[1] > 0) | ((first[1] == 0) & (first[0] > 0)), 1.0, -1.0)
    x, y = np.where(is_opposite, -first[1] * upper, x), np.where(is_opposite, first[0] * upper, y)
    length = np.maximum(np.sqrt(x * x + y * y), 1e-300)
    cos, sin = x / length, y / length
    cos2, sin2 = cos * cos - sin * sin, 2 * cos * sin
    cos3, sin3 = cos2 * cos - sin2 * sin, sin2 * cos + cos2 * sin
    cos4, sin4 = cos2 * cos2 - sin2 * sin2, 2 * cos2 * sin2
    c30, s30, c6, s6, c63, s63 = (f(np.deg2rad(angle)) for angle in (30, 6, 63) for f in (np.cos, np.sin))
    weight = 1 - 0.17 * (cos * c30 + sin * s30) + 0.24 * cos2
    weight = weight + 0.32 * (cos3 * c6 - sin3 * s6) - 0.20 * (cos4 * c63 + sin4 * s63)
    angle = np.arctan2(y, x)
    offset = (np.where(angle < 0, angle + 2 * np.pi, angle) - np.deg2rad(275)) / np.deg2rad(25)
    turn = np.sin(np.pi / 3 * np.exp(-offset * offset))
    return weight, turn


def _colourfulness(pixels: Pixels) -> np.ndarray:
    red, green, blue = pixels.exact.flatten(2)
    means, variances = [], []
    for opponent in (red - green, (red + green) / 2 - blue):
        mean = opponent.mean(dim=1)
        means.append(mean)
        variances.append(((opponent - mean[:, None]) ** 2).mean(dim=1))
    return ((variances[0] + variances[1]).sqrt() + 0.3 * (means[0] ** 2 + means[1] ** 2).sqrt()).numpy()


def _palettes(lab: "Tensor") -> tuple[np.ndarray, np.ndarray]:
    """(3, B, H, W) -> colours (B, K, 3) and their shares (B, K): k-means that begins with the most distant colours"""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    side = min(_PALETTE_SIDE, lab.shape[2]), min(_PALETTE_SIDE, lab.shape[3])
    points = adaptive_avg_pool2d(lab.transpose(0, 1), side).flatten(2).transpose(1, 2)  # (B, P, 3)
    everyone = torch.arange(len(points))
    nearest = ((points - points.mean(dim=1, keepdim=True)) ** 2).sum(dim=2)
    centres = points[everyone, nearest.argmin(dim=1)][:, None]
    for _ in range(NUM_DOMINANT - 1):
        farthest = _squares(points, centres).amin(dim=2).argmax(dim=1)
        centres = torch.cat([centres, points[everyone, farthest][:, None]], dim=1)
    for _ in range(_ROUNDS):
        member = torch.nn.functional.one_hot(_squares(points, centres).argmin(dim=2), NUM_DOMINANT).double()
        sizes = member.sum(dim=1)  # (B, K)
        sums = torch.stack([(member * points[:, :, channel, None]).sum(dim=1) for channel in range(3)], dim=2)
        centres = torch.where(sizes[..., None] > 0, sums / sizes.clamp(min=1)[..., None], centres)
    return centres.numpy(), (sizes / points.shape[1]).numpy()


def _squares(points: "Tensor", centres: "Tensor") -> "Tensor":
    """(B, P, 3), (B, K, 3) -> squared distances (B, P, K)"""
    parts = [(points[:, :, None, channel] - centres[:, None, :, channel]) ** 2 for channel in range(3)]
    return parts[0] + parts[1] + parts[2]


def _mover(colours: np.ndarray, shares: np.ndarray, others: np.ndarray, other_shares: np.ndarray) -> float:
    """Colours (K, 3) and shares (K,) twice -> what it costs at least to turn the one palette into the other"""
    from scipy.optimize import linprog

    if np.array_equal(colours, others) and np.array_equal(shares, other_shares):
        return 0.0
    num = len(shares)
    costs = np.sqrt(((colours[:, None] - others[None]) ** 2).sum(axis=2))
    leaves, arrives = np.kron(np.eye(num), np.ones(num)), np.kron(np.ones(num), np.eye(num))
    found = linprog(costs.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=np.concatenate([shares, other_shares]))
    assert found.success, found.message
    return max(0.0, float(found.fun))
