"""Parts of the page of images beside a reference."""

import numpy as np

from genloop.report.images.latex import latex_table
from genloop.report.images.page import difference_map


def test_a_difference_map_has_one_scale_for_all_pairs():
    grey, black = np.full((4, 4, 3), 128, dtype=np.uint8), np.zeros((4, 4, 3), dtype=np.uint8)
    far = grey.copy()
    far[0, 0] = 255
    same, found = difference_map(grey, grey), difference_map(far, grey)
    assert (found[1:] == same[1:]).all() and found[0, 0].sum() > same[0, 0].sum()
    assert (difference_map(np.full_like(black, 255), black) == difference_map(black, np.full_like(black, 255))).all()


def test_a_latex_table_escapes_what_latex_would_take_for_its_own():
    text = latex_table(["win_percent", "n"], [["a & b", "5 %"]], num_texts=1)
    assert text.splitlines()[0] == r"\begin{tabular}{lr}"
    assert r"win\_percent & n \\" in text and r"a \& b & 5 \% \\" in text
