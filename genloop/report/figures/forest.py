"""The forest plot: the paired difference of two runs by task with its interval, a line at zero, the mean last."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genloop.report.figures.canvas import MUTED, PALETTE, Svg, plain, svg
from genloop.report.rendering import minus, signed
from genloop.stats.comparison.compare import OVERALL, Change

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"better": PALETTE[0], "worse": PALETTE[1], "same": MUTED}
ROW = 0.46  # inches: a line of numbers above the interval


def forest_svg(changes: Sequence[Change], title: str) -> Svg:
    """Tasks and their mean -> an SVG document. Grey: not significant; bars reach as far as is detectable."""
    reach = 105 * max(0.02, *(abs(bound) for change in changes for bound in change.difference))

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for row, change in enumerate(changes):
            _draw_row(axes, row, change, reach)
        axes.set(xlim=(-reach, reach), ylim=(len(changes) - 0.35, -0.75), yticks=[])
        axes.grid(visible=False)
        axes.set_xlabel("difference in points, with 95 % interval")
        axes.xaxis.set_major_formatter(lambda value, _: minus(f"{value:+g}") if value else "0")
        axes.spines["left"].set_visible(False)
        counts = f"{changes[-1].images} images of {changes[-1].prompts} prompts"
        legend = f"{counts}. Grey: not significant.\nBars: differences too small to be found in 80 % of cases."
        axes.set_title(legend, fontsize=8, color=MUTED, loc="left")

    return svg(paint, title, 1.3 + ROW * len(changes))


def _draw_row(axes: "Axes", row: int, change: Change, reach: float) -> None:
    points, low, high = (100 * share for share in change.difference)
    is_overall, color = change.task == OVERALL, COLORS[change.result]
    if is_overall:
        axes.axhspan(row - 0.62, row + 0.32, color="#EEF1F4", zorder=0)
    if change.detectable is not None:
        width = min(100 * change.detectable, reach)
        axes.barh(row, 2 * width, left=-width, height=0.3, color=MUTED, alpha=0.18)
    axes.vlines(0, row - 0.2, row + 0.2, color=MUTED, linewidth=1)
    axes.plot([low, high], [row, row], color=color, solid_capstyle="butt")
    axes.plot([points], [row], color=color, marker="D" if is_overall else "o", markersize=6)
    p = "< 0.001" if change.p < 0.001 else f"= {change.p:.3f}"
    shortest = "none" if change.detectable is None else f"{100 * change.detectable:.1f}"
    estimate, least, most = (signed(share) for share in change.difference)
    style: dict[str, Any] = {"fontsize": 8, "fontweight": "bold" if is_overall else "normal", "va": "bottom"}
    transform = axes.get_yaxis_transform()
    axes.text(0.01, row - 0.22, plain(change.task.replace("_", " ")), transform=transform, **style)
    numbers = f"{estimate} ({least} to {most}), p {p}, detectable {shortest}"
    axes.text(0.99, row - 0.22, numbers, transform=transform, ha="right", **style)
