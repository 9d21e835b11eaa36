"""The figure of a search: SVG that stands alone, the same for the same data; labels cover neither marks nor labels."""

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genloop.report.figures.canvas import At
from genloop.report.figures.frontier import Dot, Series, front, frontier_svg, label_points
from genloop.stats.intervals import Interval

HOSTILE = '<script>alert("x")</script> & "a" photo\' of $x_1$'
SVG = "{http://www.w3.org/2000/svg}"


def at(cost: float, score: float, half: float = 0.02) -> At:
    return At(cost, Interval(score, score - half, score + half))


def best_of_n(label: str = "best of N") -> Series:
    points = [at(cost, score) for cost, score in [(1, 0.45), (2, 0.55), (4, 0.61), (8, 0.65), (20, 0.67)]]
    return Series(label, points, names=["1", "2", "4", "8", "20"])


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_figure_stands_alone_names_everything_and_has_the_same_bytes_again():
    dots = [Dot("k4@6 keep 1", at(2.1, 0.58), "parm"), Dot("k8@6 keep 2", at(4.2, 0.63), "parm")]
    svg = frontier_svg([best_of_n()], dots, title="Score against cost")
    root = ElementTree.fromstring(svg)
    assert root.findtext(f"{SVG}title") == "Score against cost"
    assert not re.search(r"<script|@import|<image|date", svg)
    links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith("href")]
    assert links != [] and all(link.startswith("#") for link in links)
    assert {"best of N", "parm", "k4@6 keep 1", "k8@6 keep 2", "1", "20", "Score against cost"} <= set(texts(svg))
    assert frontier_svg([best_of_n()], dots, title="Score against cost") == svg


def test_nothing_in_a_name_becomes_markup_or_a_formula():
    svg = frontier_svg([best_of_n(HOSTILE)], [Dot(HOSTILE, at(3, 0.5), HOSTILE)], title=HOSTILE, cost=HOSTILE)
    assert "<script>" not in svg
    assert texts(svg).count(HOSTILE) == 4


def test_nothing_to_draw_and_what_costs_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one curve or dot"):
        frontier_svg([], title="empty")
    with pytest.raises(ValueError, match="found 0"):
        frontier_svg([], [Dot("free", at(0, 0.5))], title="free")


def test_one_point_alone_makes_a_figure():
    assert "only" in texts(frontier_svg([], [Dot("only", At(3.0, Interval(0.5, 0.5, 0.5)))], title="one"))


def test_the_front_is_what_nothing_cheaper_beats():
    points = [at(4, 0.6), at(1, 0.4), at(2, 0.6), at(2, 0.5), at(8, 0.7), at(9, 0.7)]
    assert [(point.x, point.score.estimate) for point in front(points)] == [(1, 0.4), (2, 0.6), (8, 0.7)]


spots = st.tuples(st.floats(1, 40), st.floats(30, 90), st.text("abckN @.468", min_size=1, max_size=18))


@settings(max_examples=6, deadline=None)
@given(st.lists(spots, min_size=1, max_size=24))
def test_labels_overlap_neither_each_other_nor_the_axes(found):
    figure = Figure(figsize=(5, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 41), ylim=(25, 95))
    marks = [(x, y) for x, y, _ in found]
    boxes = label_points(figure, axes, [(text, x, y) for x, y, text in found], marks=marks)
    for a, b in combinations(boxes, 2):
        assert (a[2:] <= b[:2]).any() or (b[2:] <= a[:2]).any(), (a, b)
    frame = np.array(axes.get_window_extent().extents) / figure.dpi * 72
    assert all((box[:2] >= frame[:2] - 1e-6).all() and (box[2:] <= frame[2:] + 1e-6).all() for box in boxes)


def test_a_label_far_from_its_mark_is_joined_to_it():
    figure = Figure(figsize=(5, 5))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    label_points(figure, axes, [("near", 5, 5)], marks=[(5, 5)])
    assert len(axes.texts) == 1
    crowd = [(5 + dx / 5, 5 + dy / 5) for dx in range(-5, 6) for dy in range(-5, 6)]
    label_points(figure, axes, [("far", 5, 5)], marks=crowd)
    assert len(axes.texts) == 3
