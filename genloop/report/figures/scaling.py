"""The scaling figure: best-of-k of several judges and the oracle's ceiling, against k and against cost."""

from collections.abc import Sequence
from typing import Any

from genloop.report.figures.axes import linear, logarithmic
from genloop.report.figures.panel import At, Curve, Panel, families_of
from genloop.report.svg import document, label
from genloop.stats.scaling import CEILING, Scaling

LEFT, GAP, RIGHT, TOP, BOTTOM = 64, 72, 24, 96, 60  # px around and between the two plots


def draw(scaling: Scaling) -> str:
    """The figure of a scaling_curve run."""
    by_k, by_cost = [], []
    for name, curve in scaling.curves.items():
        style: dict[str, Any] = {"is_dashed": name == CEILING, "has_marks": len(curve.cost) == 1}
        places = range(1, len(curve.cost) + 1)
        by_k.append(Curve(name, [At(float(k), s) for k, s in zip(places, scaling.bands[name])], **style))
        by_cost.append(Curve(name, [At(x, s) for x, s in zip(curve.cost.tolist(), scaling.bands[name])], **style))
    unit = "operations" if scaling.cost_unit == "flops" else "generator steps"
    return scaling_svg(
        by_k,
        by_cost,
        title="Best of k from one pool",
        lead=f"{scaling.num_pools} pools of at least {scaling.pool_size} candidates, {scaling.num_prompts} prompts",
        cost=f"{unit} an image, relative to one image without search",
    )


def scaling_svg(
    by_k: Sequence[Curve],
    by_cost: Sequence[Curve],
    *,
    title: str,
    lead: str = "",
    cost: str,
    width: int = 1120,
    height: int = 480,
) -> str:
    """The same curves with x = k and with x = cost -> a whole SVG document with two plots that share their y axis."""
    families = families_of(by_k)
    bounds = [bound for curve in by_k for point in curve.points for bound in point.score]
    y = linear(bounds, height - BOTTOM, TOP, percent=True)
    side = (width - LEFT - GAP - RIGHT) / 2
    ks = [point.x for curve in by_k for point in curve.points]
    costs = [point.x for curve in by_cost for point in curve.points]
    panels = [
        Panel(
            logarithmic(ks, LEFT, LEFT + side, at=_doublings(max(ks))),
            y,
            "candidates k",
            "score of the chosen in %, with 95 % bands",
            by_k,
            families=families,
        ),
        Panel(logarithmic(costs, width - RIGHT - side, width - RIGHT), y, cost, "", by_cost, families=families),
    ]
    heading = [label(title, LEFT, 34, class_="title"), label(lead, LEFT, 56, class_="axis")]
    return document(title, width, height, *heading, *(panel.draw() for panel in panels))


def _doublings(highest: float) -> list[float]:
    """1, 2, 4, ... and the highest."""
    powers = [2.0**i for i in range(64) if 2.0**i <= highest]
    return [*(p for p in powers if p == highest or p <= highest / 1.2), *([highest] if powers[-1] != highest else [])]
