"""Curves of a training as one figure: a plot for each group of numbers over the steps, with bands of intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genloop.report.figures.canvas import Svg, color_of, plain, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = Mapping[str, Sequence[tuple[int, float]]]
COLUMNS, PANEL = 2, 1.7  # of plots; inches
LINES = ("-", "--", ":", "-.")


def curves_svg(series: Series, plots: Mapping[str, Sequence[str]], title: str) -> Svg:
    """{title of a plot: keys of its numbers} -> an SVG document; KEY_low and KEY_high are the band of a number."""
    rows = -(-len(plots) // COLUMNS)

    def paint(figure: "Figure") -> None:
        panels: Any = figure.subplots(rows, COLUMNS, squeeze=False)
        for axes in panels.ravel()[len(plots) :]:
            axes.set_axis_off()
        for axes, (name, keys) in zip(panels.ravel(), plots.items()):
            axes.set_title(plain(name), fontsize=9, loc="left")
            axes.tick_params(labelsize=8)
            for number, key in enumerate(keys):
                steps, values = zip(*series[key])
                style = {"color": color_of(number), "linestyle": LINES[number % len(LINES)]}
                style |= {"marker": "."} if len(steps) == 1 else {}
                axes.plot(steps, values, label=plain(key.replace("_", " ")), **style)
                low, high = dict(series.get(f"{key}_low", ())), dict(series.get(f"{key}_high", ()))
                if known := [step for step in low if step in high]:
                    bounds = [low[step] for step in known], [high[step] for step in known]
                    axes.fill_between(known, *bounds, color=color_of(number), alpha=0.15, linewidth=0)
            if len(keys) > 1:
                axes.legend(fontsize=7)

    return svg(paint, title, 0.5 + PANEL * rows)
