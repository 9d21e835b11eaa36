"""The scaling figure: best-of-k of several judges and the oracle's ceiling, against k and against cost."""

from typing import TYPE_CHECKING

from genloop.report.figures.canvas import At, Svg, add_legend, draw_band, logarithmic_x, svg
from genloop.stats.scaling import CEILING, Scaling

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scaling_svg(scaling: Scaling) -> Svg:
    """The curves of a scaling_curve run over k and over cost -> an SVG document with two plots of the same scores."""
    unit = "operations" if scaling.cost_unit == "flops" else "generator steps"

    def paint(figure: "Figure") -> None:
        by_k, by_cost = figure.subplots(2, sharey=True)
        for number, (name, curve) in enumerate(scaling.curves.items()):
            style = {"linestyle": "--" if name == CEILING else "-", "marker": "" if len(curve.cost) > 1 else "o"}
            band = scaling.bands[name]
            draw_band(by_k, [At(k, score) for k, score in enumerate(band, start=1)], number, name, **style)
            draw_band(by_cost, [At(*point) for point in zip(curve.cost.tolist(), band)], number, name, **style)
        longest = max(len(curve.cost) for curve in scaling.curves.values())
        logarithmic_x(by_k, doublings(longest))
        logarithmic_x(by_cost)
        by_k.set(xlabel="candidates k", ylabel="score in %, with 95 % bands")
        by_cost.set(xlabel=f"{unit} an image, relative to one image without search", ylabel="score in %")
        title = f"{scaling.num_pools} pools of at least {scaling.pool_size} candidates, {scaling.num_prompts} prompts"
        add_legend(figure, by_k, ncols=2, title=title)

    return svg(paint, "Best of k from one pool", 6.2)


def doublings(highest: int) -> list[int]:
    """1, 2, 4, ... and the highest; a power of two too close to it is left out."""
    powers = [2**i for i in range(highest.bit_length())]
    return [*(power for power in powers if power <= highest / 1.2), highest]
