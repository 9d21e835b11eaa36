"""The figures of the report: families look different, and every judge is named."""

from xml.etree import ElementTree

from genloop.report.figures.canvas import MARKERS, PALETTE, mark_of
from genloop.report.figures.scaling import doublings, scaling_svg
from genloop.stats.scaling import CEILING, scale

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_families_differ_in_marker_and_colour():
    looks = {str(sorted(mark_of(number).items())) for number in range(2 * len(PALETTE))}
    assert len(looks) == 2 * len(PALETTE) and len(MARKERS) == len(PALETTE)


def test_the_scaling_figure_names_every_judge_and_every_doubling():
    cost = {"generator_steps": 9, "flops": 9e6, "judging": {"oracle": 1e5}}
    rows = [
        {
            "prompt_index": number,
            "sample": 0,
            "prompt": f"prompt {number}",
            "tag": "counting",
            "metadata": {},
            "correct": [number % 2, 0, 1, 0, 1, 0],
            "scores": {"oracle": [0.1, 0.2, 0.9, 0.3, 0.5, 0.4]},
            "cost": cost,
        }
        for number in range(6)
    ]
    found = texts(scaling_svg(scale(rows, 0)))
    assert {"oracle", CEILING, "candidates k", "1", "2", "4", "6"} <= set(found)
    assert doublings(1) == [1] and doublings(17) == [1, 2, 4, 8, 17] and doublings(20) == [1, 2, 4, 8, 16, 20]
