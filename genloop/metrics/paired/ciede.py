"""CIEDE2000, the colour difference of CIE 142-2001, of many colours at a time."""

from collections.abc import Sequence

import numpy as np

_POW50_7 = 50.0**7
_NEARLY_OPPOSITE = 1e-3  # 1 + the cosine between hues, below which cross / sqrt(reach) loses digits
_C30, _S30, _C6, _S6, _C63, _S63 = (float(f(np.deg2rad(angle))) for angle in (30, 6, 63) for f in (np.cos, np.sin))
# T = 1 - 0.17 cos(h - 30) + 0.24 cos(2h) + 0.32 cos(3h + 6) - 0.20 cos(4h - 63) = EVEN(x) + y ODD(x), where x = -cos h
# and y = -sin h
_EVEN = (-1.6 * _C63, -1.28 * _C6, 0.48 + 1.6 * _C63, 0.17 * _C30 + 0.96 * _C6, 0.76 - 0.2 * _C63)
_ODD = (-1.6 * _S63, 1.28 * _S6, 0.8 * _S63, 0.17 * _S30 - 0.32 * _S6)
Colour = tuple[np.ndarray, np.ndarray, np.ndarray]  # a*, b* and their length, the chroma


class Buffers:
    """Arrays of one shape, used again and again: fresh memory costs more than the numbers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._free: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array with anything in it."""
        return self._free.pop() if self._free else np.empty(self.shape)

    def give(self, *arrays: np.ndarray) -> None:
        """Take arrays back that nobody reads any more."""
        self._free += arrays

    def sum_of_products(self, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        """a b + c d"""
        out, spare = self.take(), self.take()
        np.multiply(a, b, out=out)
        out += np.multiply(c, d, out=spare)
        self.give(spare)
        return out

    def affine(self, x: np.ndarray, factor: float, offset: float) -> np.ndarray:
        """x * factor + offset"""
        out = np.multiply(x, factor, out=self.take())
        out += offset
        return out

    def length(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """sqrt(x^2 + y^2)"""
        out = self.sum_of_products(x, x, y, y)
        return np.sqrt(out, out=out)

    def polynomial(self, x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
        """The highest power first."""
        found = self.affine(x, coefficients[0], coefficients[1])
        for coefficient in coefficients[2:]:
            found *= x
            found += coefficient
        return found


def ciede2000(x: np.ndarray, y: np.ndarray, buffers: Buffers | None = None) -> np.ndarray:
    """L*a*b* (3, ...) twice -> (...): the colour difference of CIE 142-2001, weights 1 (Sharma et al. 2005).

    Hues are directions: sines and cosines of the mean hue come from the sum of two unit vectors, without any angle.
    The result belongs to `buffers`.
    """
    buffers = buffers or Buffers(np.shape(x)[1:])
    (light_x, a, b), (light_y, c, d) = x, y
    total, other = buffers.length(a, b), buffers.length(c, d)
    total += other
    stretch = _seventh(total, buffers)
    stretch *= -0.5
    stretch += 1.5
    a, c = np.multiply(a, stretch, out=total), np.multiply(c, stretch, out=other)
    buffers.give(stretch)
    one, two = (a, b, buffers.length(a, b)), (c, d, buffers.length(c, d))
    hue, against = _hue_difference(one, two, buffers), _against_mean_hue(one, two, buffers)
    total, chromatic = np.add(one[2], two[2], out=a), np.subtract(two[2], one[2], out=c)
    buffers.give(one[2], two[2])
    weight, turn = _hue_terms(*against, buffers)
    weight *= total
    hue /= np.add(np.multiply(weight, 0.0075, out=weight), 1, out=weight)
    bound, rotation = buffers.affine(total, 0.0225, 1), _seventh(total, buffers)
    chromatic /= bound
    turn *= rotation
    turn *= chromatic
    turn *= -2
    turn += hue
    turn *= hue
    lightness = _lightness(light_x, light_y, buffers)
    for part in (lightness, chromatic):
        part *= part
        turn += part
    buffers.give(hue, total, chromatic, weight, bound, rotation, lightness)
    return np.sqrt(np.maximum(turn, 0, out=turn), out=turn)


def _seventh(total: np.ndarray, buffers: Buffers) -> np.ndarray:
    """2 C -> sqrt(C^7 / (C^7 + 25^7))"""
    out = np.multiply(total, total, out=buffers.take())
    out *= total
    out *= out
    out *= total
    bound = np.add(out, _POW50_7, out=buffers.take())
    out /= bound
    buffers.give(bound)
    return np.sqrt(out, out=out)


def _lightness(x: np.ndarray, y: np.ndarray, buffers: Buffers) -> np.ndarray:
    """The difference of L*, weighted."""
    middle, spare = buffers.affine(x, 0.5, -50), buffers.affine(y, 0.5, 0)
    middle += spare
    middle *= middle
    np.sqrt(np.add(middle, 20, out=spare), out=spare)
    middle *= 0.015
    middle /= spare
    middle += 1
    found = np.subtract(y, x, out=spare)
    found /= middle
    buffers.give(middle)
    return found


def _hue_difference(one: Colour, other: Colour, buffers: Buffers) -> np.ndarray:
    """Colours of chromas C and C' -> 2 sqrt(C C') sin(dh / 2)"""
    (a, b, chroma_x), (c, d, chroma_y) = one, other
    reach, both = buffers.sum_of_products(a, c, b, d), np.multiply(chroma_x, chroma_y, out=buffers.take())
    cross, spare = np.multiply(a, d, out=buffers.take()), np.multiply(b, c, out=buffers.take())
    cross -= spare
    reach += both
    opposite = reach <= np.multiply(both, _NEARLY_OPPOSITE, out=spare)  # grey too
    if opposite.any():
        chord = np.sqrt(np.maximum(4 * both[opposite] - 2 * reach[opposite], 0))
        far = np.where(both[opposite] > 0, np.where(cross[opposite] < 0, -chord, chord), 0.0)
        reach[opposite], cross[opposite] = 2.0, far
    reach *= 0.5
    cross /= np.sqrt(reach, out=reach)
    buffers.give(reach, both, spare)
    return cross


def _against_mean_hue(one: Colour, other: Colour, buffers: Buffers) -> tuple[np.ndarray, np.ndarray]:
    """Colours -> the unit vector that points away from the mean hue; of opposite hues that is at right angles"""
    (a, b, chroma_x), (c, d, chroma_y) = one, other
    x, y = buffers.sum_of_products(a, chroma_y, c, chroma_x), buffers.sum_of_products(b, chroma_y, d, chroma_x)
    length = buffers.length(x, y)
    opposite = length == 0
    if opposite.any():
        p, q = a[opposite], b[opposite]
        upper = np.where((q > 0) | ((q == 0) & (p > 0)), 1.0, -1.0)
        x[opposite], y[opposite] = -q * upper, p * upper
        length[opposite] = np.maximum(np.hypot(p, q), 1e-300)
    np.divide(-1, length, out=length)
    x *= length
    y *= length
    buffers.give(length)
    return x, y


def _hue_terms(x: np.ndarray, y: np.ndarray, buffers: Buffers) -> tuple[np.ndarray, np.ndarray]:
    """A unit vector against the mean hue -> T and sin(2 theta) of the formula; takes the vector's arrays back"""
    import torch

    offset = np.arctan2(y, x, out=buffers.take())  # from 180 degrees, so that 0 and 360 are its ends
    weight, odd = buffers.polynomial(x, _EVEN), buffers.polynomial(x, _ODD)
    odd *= y
    weight += odd
    offset += np.pi - np.deg2rad(275)
    offset *= 1 / np.deg2rad(25)
    turn = np.multiply(offset, offset, out=x)
    np.exp(np.negative(turn, out=turn), out=turn)
    turn *= np.pi / 3
    buffers.give(offset, odd, y)
    torch.from_numpy(turn).sin_()  # numpy's sine takes twice as long
    return weight, turn
