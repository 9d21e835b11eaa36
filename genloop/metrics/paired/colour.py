"""Paired metrics of colour: HSV histograms, CIEDE2000, moments, dominant colours, colourfulness.

Every function takes the candidates and their references, B images each, and returns (B,) float64.
"""

from typing import TYPE_CHECKING

import numpy as np

from genloop.data.pixels import blocks
from genloop.metrics.paired.ciede import Buffers, ciede2000
from genloop.metrics.paired.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

NUM_DOMINANT = 5
_PALETTE_SIDE = 32  # pixels of the copy whose colours are grouped
_ROUNDS = 12  # of k-means
_BLOCK = 1 << 14  # pixels whose differences are computed together: fewer calls weigh more than a smaller cache


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
    ours, theirs = (side.lab.reshape(3, -1) for side in (candidates, references))
    found, buffers = np.empty(ours.shape[1]), Buffers(())
    for block in blocks(len(found), _BLOCK):
        one, other = ours[:, block], theirs[:, block]
        if buffers.shape != one.shape[1:]:
            buffers = Buffers(one.shape[1:])
        difference = ciede2000(one, other, buffers)
        found[block] = difference
        buffers.give(difference)
    return found.reshape(len(candidates.images), -1).mean(axis=1)


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
