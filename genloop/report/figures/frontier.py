"""The frontier figure: what each strategy scores for what it costs, on a logarithmic axis of cost."""

from collections.abc import Sequence

from genloop.report.figures.axes import linear, logarithmic
from genloop.report.figures.panel import FONT_SIZE, At, Curve, Dot, Panel, families_of
from genloop.report.svg import document, element, label, marker, path, text_width

__all__ = ["At", "Curve", "Dot", "front", "frontier_svg"]

LEFT, RIGHT, BOTTOM = 64, 24, 60  # px around the plot


def frontier_svg(
    curves: Sequence[Curve],
    dots: Sequence[Dot] = (),
    *,
    title: str,
    cost: str = "operations an image, relative to one image without search",
    score: str = "score in %, with 95 % intervals",
    width: int = 1120,
    height: int = 680,
) -> str:
    """Curves of strategies with several budgets and dots of others -> a whole SVG document.

    A grey ribbon joins what nothing cheaper beats. ValueError when there is nothing to draw, or a cost of 0.
    """
    points = [point for curve in curves for point in curve.points] + [dot.point for dot in dots]
    if not points:
        raise ValueError("a frontier needs at least one curve or dot")
    families = families_of(curves, dots)
    legend, below = _legend(families, width)
    top = below + 34
    panel = Panel(
        x=logarithmic([point.x for point in points], LEFT, width - RIGHT),
        y=linear([bound for point in points for bound in point.score], height - BOTTOM, top, percent=True),
        x_title=cost,
        y_title=score,
        curves=curves,
        dots=dots,
        families=families,
        has_legend=True,
    )
    ribbon = path([(panel.x(point.x), panel.y(point.score.estimate)) for point in front(points)])
    heading = label(title, LEFT, 34, class_="title")
    return document(title, width, height, heading, legend, element("path", d=ribbon, class_="front"), panel.draw())


def front(points: Sequence[At]) -> list[At]:
    """The points that nothing cheaper, or equally cheap, beats or equals; cheapest first."""
    best: list[At] = []
    for point in sorted(points, key=lambda point: (point.x, -point.score.estimate)):
        if not best or point.score.estimate > best[-1].score.estimate:
            best.append(point)
    return best


def _legend(families: dict[str, int], width: int) -> tuple[str, float]:
    """Mark and name of each family, in as many lines as it takes -> SVG, the y below it."""
    drawn, x, y = [], float(LEFT), 60.0
    for name, number in families.items():
        needed = 18 + text_width(name, FONT_SIZE)
        if x > LEFT and x + needed > width - RIGHT:
            x, y = float(LEFT), y + 22
        drawn += [marker(number, x + 7, y - 4.5), label(name, x + 18, y)]
        x += needed + 20
    return "".join(drawn), y + 8
