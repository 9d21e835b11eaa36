"""Masks as text: what pycocotools 2.0.11 writes for the same masks, and nothing is lost on the way there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from genloop.data.masks import decode_mask, encode_mask


def rectangle() -> np.ndarray:
    mask = np.zeros((24, 31), bool)
    mask[3:9, 4:20] = True
    return mask


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:30, :40]
    return (rows - 15) ** 2 + (columns - 12) ** 2 < 81


KNOWN = [
    (np.zeros((4, 5), bool), "d0"),
    (np.ones((4, 5), bool), "0d0"),
    (np.eye(3, dtype=bool), "013000"),
    (np.zeros((480, 640), bool), "PP\\9"),
    (np.ones((480, 640), bool), "0PP\\9"),
    (rectangle(), "S36b000000000000000000000000000000U8"),
    (disc(), "S49d02N2N2N2O0000000000000001N2N2N2N`a0"),
]


@pytest.mark.parametrize(("mask", "text"), KNOWN)
def test_the_text_is_that_of_pycocotools(mask: np.ndarray, text: str) -> None:
    assert encode_mask(mask) == text
    assert np.array_equal(decode_mask(text, *mask.shape), mask)


@given(
    arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.booleans()),
    st.integers(1, 40),
    st.integers(1, 3),
)
def test_a_mask_survives_its_text(mask: np.ndarray, taller: int, wider: int) -> None:
    large = np.kron(mask, np.ones((taller, wider), bool))  # runs of many digits
    assert np.array_equal(decode_mask(encode_mask(large), *large.shape), large)


@pytest.mark.parametrize("fill", [False, True])
@given(st.integers(0, 2000), st.integers(0, 3000))
def test_empty_and_full_masks_of_any_size_survive(fill: bool, height: int, width: int) -> None:
    decoded = decode_mask(encode_mask(np.full((height, width), fill)), height, width)
    assert decoded.shape == (height, width) and decoded.dtype == bool
    assert decoded.all() if fill else not decoded.any()
