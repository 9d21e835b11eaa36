"""Outlines of masks: filled by the even-odd rule they are the masks again, hole by hole."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from genloop.report.failures.outlines import MAX_SIDE, outline


def filled(path: str, height: int, width: int) -> np.ndarray:
    """(height, width) bool: the pixels with an odd number of vertical edges to the left of their middle."""
    crossings = np.zeros((height, width), int)
    for loop in path.split("M")[1:]:
        x, y = (int(value) for value in re.match(r"(\d+) (\d+)", loop).groups())
        start = x, y
        for across, down in re.findall(r"H(\d+)V(\d+)", loop):
            x, low, high = int(across), *sorted((y, int(down)))
            crossings[low:high, x:] += 1
            y = int(down)
        assert (x, y) == start and loop.endswith("z")
    return crossings % 2 == 1


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans()))
def test_a_filled_outline_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(filled(outline(mask), *mask.shape), mask)


def test_outlines_have_as_few_corners_as_their_shape() -> None:
    mask = np.zeros((9, 9), bool)
    assert outline(mask) == ""
    mask[2:7, 1:8] = True
    assert outline(mask) == "M1 2H8V7H1V2z"
    mask[4, 4] = False
    assert outline(mask) == "M1 2H8V7H1V2zM4 4H5V5H4V4z"


@pytest.mark.parametrize("side", [MAX_SIDE, 3 * MAX_SIDE - 1])
def test_large_masks_are_thinned_out_and_stay_in_place(side: int) -> None:
    rows, columns = np.mgrid[:side, :side]
    mask = (rows - side * 0.4) ** 2 + (columns - side * 0.6) ** 2 < (side / 4) ** 2
    path = outline(mask)
    assert len(path) < 8000
    overlap = filled(path, side, side)
    assert (overlap & mask).sum() / (overlap | mask).sum() > 0.98
