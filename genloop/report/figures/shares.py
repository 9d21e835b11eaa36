"""Shares with their intervals by group, one mark a run: the figure beside a table of scores."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from genloop.report.figures.canvas import Svg, add_legend, color_of, mark_of, plain, svg
from genloop.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK, GAP = 0.16, 0.2  # inches for a mark, and between two groups


def shares_svg(groups: Mapping[str, Sequence[Interval | None]], names: Sequence[str], title: str, axis: str) -> Svg:
    """{group: the share of each name, None where it has none} -> an SVG document; `axis` says what is shared, in %."""

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            found = [(row, shares[number]) for row, shares in enumerate(groups.values())]
            places = [(row + 0.6 * ((number + 0.5) / len(names) - 0.5), one) for row, one in found if one is not None]
            axes.hlines(
                [place for place, _ in places],
                [100 * one.low for _, one in places],
                [100 * one.high for _, one in places],
                color=color_of(number),
            )
            rows, shares = [place for place, _ in places], [100 * one.estimate for _, one in places]
            axes.plot(shares, rows, linestyle="", label=plain(name), **mark_of(number))
        axes.set(xlim=(-2, 102), ylim=(len(groups) - 0.4, -0.6), xlabel=f"{axis}, with 95 % intervals")
        axes.set_yticks(range(len(groups)), [plain(group.replace("_", " ")) for group in groups])
        if len(names) > 1:
            add_legend(figure, axes, fontsize=8)

    return svg(paint, title, 1.1 + len(groups) * (GAP + MARK * len(names)) + 0.18 * len(names) * (len(names) > 1))
