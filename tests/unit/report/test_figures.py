"""The figures: well-formed SVG that stands alone, marks where their numbers are, labels that never overlap."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genloop.report.figures.axes import linear, logarithmic
from genloop.report.figures.frontier import At, Curve, Dot, front, frontier_svg
from genloop.report.figures.labels import LINE_HEIGHT, place_labels
from genloop.report.figures.panel import Panel, families_of
from genloop.report.figures.scaling import scaling_svg
from genloop.report.svg import text_width
from genloop.stats.intervals import Interval

HOSTILE = '<script>alert("x")</script> & "a" photo\''
SVG = "{http://www.w3.org/2000/svg}"


def at(cost: float, score: float, half: float = 0.02) -> At:
    return At(cost, Interval(score, score - half, score + half))


def best_of_n(label: str = "best of N") -> Curve:
    points = [at(cost, score) for cost, score in [(1, 0.45), (2, 0.55), (4, 0.61), (8, 0.65), (20, 0.67)]]
    return Curve(label, points, names=["1", "2", "4", "8", "20"])


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_figure_is_well_formed_stands_alone_and_names_everything():
    dots = [Dot("k4@6 keep 1", at(2.1, 0.58), "parm"), Dot("k8@6 keep 2", at(4.2, 0.63), "parm")]
    svg = frontier_svg([best_of_n()], dots, title="Score against cost")
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img" and root.get("viewBox") == "0 0 1120 680"
    assert root.findtext(f"{SVG}title") == "Score against cost"
    assert not re.search(r"<script|url\(|href|@import|https?://(?!www.w3.org/2000/svg)", svg)
    assert {"best of N", "parm", "k4@6 keep 1", "k8@6 keep 2", "1", "20", "Score against cost"} <= set(texts(svg))
    titles = [node.text for node in root.iter(f"{SVG}title")]
    assert "k4@6 keep 1: 58.0 (56.0 to 60.0) at 2.1" in titles
    assert frontier_svg([best_of_n()], dots, title="Score against cost") == svg


def test_nothing_in_a_name_becomes_markup():
    svg = frontier_svg([best_of_n(HOSTILE)], [Dot(HOSTILE, at(3, 0.5), HOSTILE)], title=HOSTILE, cost=HOSTILE)
    assert "<script>" not in svg
    assert texts(svg).count(HOSTILE) == 4


def test_nothing_to_draw_and_what_costs_nothing_are_refused():
    with pytest.raises(ValueError, match="at least one curve or dot"):
        frontier_svg([], title="empty")
    with pytest.raises(ValueError, match="needs values above 0, found 0"):
        frontier_svg([], [Dot("free", at(0, 0.5))], title="free")


def test_one_point_alone_makes_a_figure():
    assert "only" in texts(frontier_svg([], [Dot("only", At(3.0, Interval(0.5, 0.5, 0.5)))], title="one"))


def test_the_front_is_what_nothing_cheaper_beats():
    points = [at(4, 0.6), at(1, 0.4), at(2, 0.6), at(2, 0.5), at(8, 0.7), at(9, 0.7)]
    assert [(point.x, point.score.estimate) for point in front(points)] == [(1, 0.4), (2, 0.6), (8, 0.7)]


spots = st.tuples(st.floats(1, 40), st.floats(0.3, 0.9), st.text("abckN @.468", min_size=1, max_size=18))


@settings(max_examples=30, deadline=None)
@given(st.lists(spots, min_size=1, max_size=24))
def test_labels_never_overlap_and_stay_inside(found):
    dots = [Dot(text, at(cost, score)) for cost, score, text in found]
    x, y = logarithmic([1, 40], 60, 1090), linear([0.28, 0.92], 620, 90)
    labels = Panel(x, y, "", "", [best_of_n()], dots, families_of([best_of_n()], dots)).labels()
    assert len(labels) == 1 + 5 + len(dots)
    for a, b in combinations(labels, 2):
        apart = a.box[2] <= b.box[0] or b.box[2] <= a.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]
        assert apart, (a, b)
    assert min(p.box[0] for p in labels) >= 60 and max(p.box[2] for p in labels) <= 1090
    assert min(p.box[1] for p in labels) >= 90 and max(p.box[3] for p in labels) <= 620


def test_a_label_stands_beside_its_mark_and_is_led_to_from_afar():
    near = place_labels([("near", 30.0, (100.0, 100.0))], [(93, 93, 107, 107)], [], (0, 0, 400, 400))[0]
    assert near.leader is None and near.x >= 107
    wall = [(0.0, float(top), 400.0, top + 10.0) for top in range(60, 150, 10)]
    far = place_labels([("far", 30.0, (100.0, 100.0))], wall, [], (0, 0, 400, 400))[0]
    assert far.leader is not None and (far.y >= 150 or far.y + LINE_HEIGHT <= 60)


def test_wide_texts_are_taken_to_be_wider():
    assert text_width("MMMM", 13) > text_width("nnnn", 13) > text_width("iiii", 13) > 0


@given(st.floats(0.001, 1e6), st.floats(1.0, 1e6))
def test_a_logarithmic_axis_holds_its_values_in_order(low, ratio):
    axis = logarithmic([low, low * ratio], 10, 500)
    assert 10 <= axis(low) <= axis(low * ratio) <= 500
    assert all(10 <= axis(value) <= 500 for value, _ in axis.ticks)


@given(st.floats(-1, 1), st.floats(0, 2))
@example(0.0, 5e-324)
def test_a_linear_axis_holds_its_values_between_round_numbers(low, reach):
    axis = linear([low, low + reach], 400, 20)
    assert 20 - 1e-6 <= axis(low + reach) <= axis(low) <= 400 + 1e-6
    assert 3 <= len(axis.ticks) <= 12
    gaps = [b - a for (a, _), (b, _) in pairwise(axis.ticks)]
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-6, abs=1e-12)
    assert float(f"{gaps[0]:.0e}"[:1]) in {1, 2, 5}


def test_the_scaling_figure_shows_every_curve_twice():
    curves = [Curve("ORM", best_of_n().points, has_marks=False), Curve("ceiling", [at(1, 0.45), at(20, 0.9)])]
    svg = scaling_svg(curves, curves, title="Best of k", lead="600 pools", cost="operations")
    found = texts(svg)
    assert [found.count(name) for name in ("ORM", "ceiling", "candidates k", "operations", "600 pools")] == [
        2,
        2,
        1,
        1,
        1,
    ]
    assert {"1", "2", "4", "8", "16", "20"} <= set(found)
    assert svg.count("NaN") == svg.count("nan") == 0
