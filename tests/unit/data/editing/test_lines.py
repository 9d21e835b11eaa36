"""Line maps: where lines are, what is too small, and how layers go together."""

import numpy as np
import pytest

from genloop.data.editing.lines import LINES, canny_lines, lineart_lines, with_thin_lines


def with_bar(width: int, *, dark: int = 0, length: int = 64) -> np.ndarray:
    picture = np.full((64, 64, 3), 200, dtype=np.uint8)
    picture[:length, 30 : 30 + width] = dark
    return picture


@pytest.mark.parametrize("name", list(LINES))
def test_a_bar_has_lines_and_a_flat_picture_none(name: str) -> None:
    found = LINES[name](with_bar(6))
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8 and (found[..., 0] == found[..., 2]).all()
    assert found[:, 20:46].max() > 127 and not found[:, :8].any()
    assert not LINES[name](np.full((64, 64, 3), 90, dtype=np.uint8)).any()


def test_canny_finds_both_sides_of_a_bar_and_line_art_the_bar() -> None:
    edges, bar = canny_lines(with_bar(10))[32, :, 0] > 0, lineart_lines(with_bar(4))[32, :, 0]
    assert edges[27:33].any() and edges[37:43].any() and not edges[34:37].any()
    assert bar[30:34].min() > 100 and bar[10] < 10


def test_the_median_of_clear_lines_is_in_the_middle_and_faint_ones_stay_faint() -> None:
    clear, faint = lineart_lines(with_bar(4)), lineart_lines(with_bar(4, dark=195))
    assert 100 <= np.median(clear[clear > 30]) <= 150 and 0 < faint.max() < 64


def test_specks_are_left_out_and_nothing_wraps_around() -> None:
    """The released layers are multiplied as bytes: an edge and a line on it could give black."""
    none, all_over = np.zeros((64, 64), dtype=np.uint8), np.full((64, 64), 255, dtype=np.uint8)
    assert with_thin_lines(none, with_bar(2)).max() > 60
    assert not with_thin_lines(none, with_bar(1, length=2)).any()
    assert (with_thin_lines(all_over, with_bar(4)) == 255).all()
    half = with_thin_lines(np.full((64, 64), 127, dtype=np.uint8), with_bar(4))
    assert half.min() == 127 and half.max() > 127
