"""The figures of the report: families look different, and every judge is named."""

from xml.etree import ElementTree

from PIL import Image

from genloop.report.figures.canvas import DPI, MARKERS, PALETTE, WIDTH, mark_of, write_figure
from genloop.report.figures.scaling import doublings, scaling_svg
from genloop.stats.scaling import CEILING, scale

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def pool():
    """The rows of a pool of six prompts."""
    cost = {"generator_steps": 9, "flops": 9e6, "judging": {"oracle": 1e5}}
    return [
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


def test_families_differ_in_marker_and_colour():
    looks = {str(sorted(mark_of(number).items())) for number in range(2 * len(PALETTE))}
    assert len(looks) == 2 * len(PALETTE) and len(MARKERS) == len(PALETTE)


def test_the_scaling_figure_names_every_judge_and_every_doubling():
    found = texts(scaling_svg(scale(pool(), 0)))
    assert {"oracle", CEILING, "candidates k", "1", "2", "4", "6"} <= set(found)
    assert doublings(1) == [1] and doublings(17) == [1, 2, 4, 8, 17] and doublings(20) == [1, 2, 4, 8, 16, 20]


def test_a_figure_is_written_as_svg_and_as_png(tmp_path):
    write_figure(tmp_path / "curve", scaling_svg(scale(pool(), 0)))
    assert (tmp_path / "curve.svg").read_text().count("<svg") == 1
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size[0] == round(WIDTH * DPI)
