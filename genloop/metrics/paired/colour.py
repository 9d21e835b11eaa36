"""Paired metrics of colour: HSV histograms, CIEDE2000, moments, dominant colours, colourfulness.

Every function takes the candidates and their references, B images each, and returns (B,) float64.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genloop.data.pixels import blocks
from genloop.metrics.paired.pixels import Pixels

if TYPE_CHECKING:
    from torch import Tensor

NUM_DOMINANT = 5
_PALETTE_SIDE = 32  # pixels of the copy whose colours are grouped
_ROUNDS = 12  # of k-means
_BLOCK = 1 << 14  # pixels whose differences are computed together: fewer calls weigh more than a smaller cache
_POW25_7 = 25.0**7
_NEARLY_OPPOSITE = 1e-3  # 1 + the cosine between hues, below which cross / sqrt(reach) loses digits
_C30, _S30, _C6, _S6, _C63, _S63 = (float(f(np.deg2rad(angle))) for angle in (30, 6, 63) for f in (np.cos, np.sin))
# T = 1 - 0.17 cos(h - 30) + 0.24 cos(2h) + 0.32 cos(3h + 6) - 0.20 cos(4h - 63) = EVEN(cos h) + sin h ODD(cos h)
_EVEN = (-1.6 * _C63, 1.28 * _C6, 0.48 + 1.6 * _C63, -0.17 * _C30 - 0.96 * _C6, 0.76 - 0.2 * _C63)
_ODD = (-1.6 * _S63, -1.28 * _S6, 0.8 * _S63, 0.32 * _S6 - 0.17 * _S30)
Colour = tuple[np.ndarray, np.ndarray]  # a* and b*


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
    found = np.empty(ours.shape[1])
    for block in blocks(len(found), _BLOCK):
        found[block] = ciede2000(ours[:, block], theirs[:, block])
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


def ciede2000(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """L*a*b* (3, ...) twice -> (...): the colour difference of CIE 142-2001, weights 1 (Sharma et al. 2005).

    Hues are directions: sines and cosines of the mean hue come from the sum of two unit vectors, without any angle.
    """
    (light_x, a, b), (light_y, c, d) = x, y
    stretch = 1.5 - 0.5 * _seventh((_length(a, b) + _length(c, d)) / 2)
    a, c = a * stretch, c * stretch
    chroma_x, chroma_y = _length(a, b), _length(c, d)
    chroma = (chroma_x + chroma_y) / 2
    lightness, middle = light_y - light_x, ((light_x + light_y) / 2 - 50) ** 2
    lightness /= 1 + 0.015 * middle / np.sqrt(20 + middle)
    chromatic = (chroma_y - chroma_x) / (1 + 0.045 * chroma)
    weight, turn = _hue_terms(a * chroma_y + c * chroma_x, b * chroma_y + d * chroma_x, (a, b))
    weight *= chroma
    weight *= 0.015
    hue = _hue_difference((a, b), (c, d), chroma_x * chroma_y) / (weight + 1)
    turn *= _seventh(chroma)
    turn *= -2 * chromatic
    found = (turn + hue) * hue
    found += lightness * lightness
    found += chromatic * chromatic
    return np.sqrt(np.maximum(found, 0, out=found), out=found)


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = x * x
    squares += y * y
    return np.sqrt(squares, out=squares)


def _seventh(chroma: np.ndarray) -> np.ndarray:
    """sqrt(C^7 / (C^7 + 25^7))"""
    power = chroma * chroma
    power *= chroma
    power *= power
    power *= chroma
    power /= power + _POW25_7
    return np.sqrt(power, out=power)


def _hue_difference(one: Colour, other: Colour, both: np.ndarray) -> np.ndarray:
    """Colours (a, b) of chromas C and C', C C' -> 2 sqrt(C C') sin(dh / 2)"""
    (a, b), (c, d) = one, other
    reach, cross = both + (a * c + b * d), a * d - b * c
    opposite = reach <= _NEARLY_OPPOSITE * both  # grey too
    if opposite.any():
        reach = np.where(opposite, 1.0, reach)
        chord = np.sqrt(2 * np.maximum(both - (a * c + b * d), 0))
        far = np.where(both > 0, np.where(cross < 0, -chord, chord), 0.0)
        return np.where(opposite, far, cross / np.sqrt(reach / 2))
    reach *= 0.5
    cross /= np.sqrt(reach, out=reach)
    return cross


def _hue_terms(x: np.ndarray, y: np.ndarray, first: Colour) -> Colour:
    """A vector at the mean hue -> T and sin(2 theta) of the formula; of opposite hues the mean is at right angles"""
    import torch

    length = _length(x, y)
    is_opposite = length == 0
    if is_opposite.any():
        upper = np.where((first[1] > 0) | ((first[1] == 0) & (first[0] > 0)), 1.0, -1.0)
        x, y = np.where(is_opposite, -first[1] * upper, x), np.where(is_opposite, first[0] * upper, y)
        length = np.maximum(_length(x, y), 1e-300)
    cos, sin = x / length, y / length
    weight = _polynomial(cos, _EVEN)
    weight += sin * _polynomial(cos, _ODD)
    offset = np.arctan2(-y, -x)  # from 180 degrees, so that 0 and 360 are its ends
    offset += np.pi - np.deg2rad(275)
    offset /= np.deg2rad(25)
    offset *= -offset
    turn = np.exp(offset, out=offset)
    turn *= np.pi / 3
    return weight, torch.from_numpy(turn).sin_().numpy()  # numpy's sine takes twice as long


def _polynomial(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """The highest power first."""
    found = x * coefficients[0]
    found += coefficients[1]
    for coefficient in coefficients[2:]:
        found *= x
        found += coefficient
    return found


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
