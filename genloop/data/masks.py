"""Masks as text: COCO's compressed run-length encoding, as pycocotools writes and reads it.

The pixels are taken column by column. The lengths of the runs, the first of them of pixels outside, become a string:
from the fourth on a length less the one two before it, in digits of five bits, the lowest first, each a character from
"0" on.
"""

import numpy as np

_FIRST = 48  # the character "0"
_LONGEST = 60  # bits of a length: more pixels than any image has
_DIGIT, _MORE, _SIGN = 0x1F, 0x20, 0x10  # five bits, then whether another digit follows; the sign is the last fifth bit


def encode_mask(mask: np.ndarray) -> str:
    """(H, W) bool -> its text; H and W are not in it."""
    pixels = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    opening = [0] if pixels.size and pixels[0] else []  # no pixel outside comes first
    counts = opening + np.diff([0, *edges.tolist(), pixels.size]).tolist()
    return "".join(_digits(count - (counts[i - 2] if i > 2 else 0)) for i, count in enumerate(counts))


def decode_mask(text: str, height: int, width: int) -> np.ndarray:
    """The text of a mask of that size -> (height, width) bool. Raises ValueError when it is none of that size."""
    counts: list[int] = []
    for value in _values(text):
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    if not counts or min(counts) < 0 or sum(counts) != height * width:
        raise ValueError(f"{text[:40]!r}: not the runs of a mask of {width} x {height} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape((height, width), order="F")


def _digits(value: int) -> str:
    text = ""
    while True:
        digit, value = value & _DIGIT, value >> 5
        if value == (-1 if digit & _SIGN else 0):
            return text + chr(_FIRST + digit)
        text += chr(_FIRST + digit + _MORE)


def _values(text: str) -> list[int]:
    """The signed numbers that the characters spell."""
    values, value, shift = [], 0, 0
    for character in text:
        code = ord(character) - _FIRST
        if not 0 <= code < 2 * _MORE or shift > _LONGEST:
            raise ValueError(f"{text[:40]!r}: {character!r} does not belong into a mask's text")
        value |= (code & _DIGIT) << shift
        shift += 5
        if not code & _MORE:
            values.append(value - (1 << shift) if code & _SIGN else value)
            value, shift = 0, 0
    if shift:
        raise ValueError(f"{text[:40]!r}: a mask's text that breaks off")
    return values
