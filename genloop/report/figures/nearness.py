"""How near sides are to a reference: a radar from floor to equal images, and the distribution of every metric."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genloop.report.figures.canvas import MUTED, Kind, color_of, drawn, mark_of, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, PANEL = 2, 1.6  # of distributions; inches


def radar(sides: Mapping[str, Mapping[str, float]], title: str, kind: Kind = "svg") -> bytes:
    """{side: {metric: share of the way from the floor, 0, to equal images, 1}} -> the bytes of a figure.

    Shares are drawn within [0, 1]; at least three metrics.
    """
    metrics = list(next(iter(sides.values())))

    def paint(figure: "Figure") -> None:
        axes: Any = figure.add_subplot(projection="polar")
        turns = [2 * math.pi * number / len(metrics) for number in range(len(metrics))]
        for number, (side, shares) in enumerate(sides.items()):
            reach = [min(1.0, max(0.0, shares[metric])) for metric in metrics]
            axes.plot([*turns, turns[0]], [*reach, reach[0]], label=plain(side), **mark_of(number))
            axes.fill(turns, reach, color=color_of(number), alpha=0.12, linewidth=0)
        labels = axes.set_xticks(turns, [plain(_label(metric)) for metric in metrics], fontsize=9)
        for tick, turn in zip(labels, turns):
            across = math.cos(turn)
            side = "center" if abs(across) < 0.3 else "left" if across > 0 else "right"
            tick.label1.set(horizontalalignment=side, linespacing=0.9)
        axes.tick_params(axis="x", pad=2)
        axes.set_rlabel_position(180 / len(metrics))  # between two spokes
        axes.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=9, color=MUTED)
        axes.set(ylim=(0, 1))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.42, -0.2), fontsize=9)

    return drawn(paint, title, 5.0, kind)


def distributions(values: Mapping[str, Mapping[str, Sequence[float]]], title: str, kind: Kind = "svg") -> bytes:
    """{metric: {side: its values}} -> the bytes of a figure: boxes of quartiles, whiskers from 5 to 95 %."""
    rows = -(-len(values) // COLUMNS)

    def paint(figure: "Figure") -> None:
        panels: Any = figure.subplots(rows, COLUMNS, squeeze=False)
        for place, axes in enumerate(panels.ravel()):
            if place >= len(values):
                axes.set_axis_off()
                continue
            metric, sides = list(values.items())[place]
            look: dict[str, Any] = {"showfliers": False, "patch_artist": True, "medianprops": {"color": "black"}}
            drawn = axes.boxplot(list(sides.values()), whis=(5, 95), widths=0.6, **look)
            for number, box in enumerate(drawn["boxes"]):
                box.set(facecolor=color_of(number), alpha=0.5)
            axes.set_title(plain(metric.replace("_", " ")), fontsize=9, loc="left")
            axes.set_xticks(range(1, len(sides) + 1), [plain(side) for side in sides], fontsize=8)
            axes.tick_params(axis="y", labelsize=8)

    return drawn(paint, title, 0.5 + PANEL * rows, kind)


def _label(metric: str) -> str:
    """In two lines where it is long"""
    return metric.replace("_", "\n" if len(metric) > 8 else " ")
