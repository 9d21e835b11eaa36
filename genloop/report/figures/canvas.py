"""One look for all figures that stand alone: size, palette, fonts, and SVG whose bytes depend on its data alone.

Figures are as wide as a phone shows them without shrinking their text below 9 px. Colours are those of Okabe and Ito
(2008), which colour-blind readers tell apart; markers repeat what colours say. Text stays text, in the reader's font.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from genloop.registry import require
from genloop.rundir import write_atomic
from genloop.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, TITLE = 5.2, 0.32  # inches: the figure, the strip of its title
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#9E4784", "#B07B00", "#2F8FC4", "#5A5A5A")
MARKERS = "osD^vPX"
MUTED = "#5A626C"
DPI = 200  # of PNG files
Kind = Literal["svg", "png", "pdf"]
_UNSTABLE = {  # metadata that would change between equal figures
    "svg": ("Date", "Creator", "Format", "Type"),
    "png": ("Software",),
    "pdf": ("Creator", "Producer", "CreationDate"),
}
STYLE = {
    "svg.hashsalt": "genloop",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E7EB",
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
}


class At(NamedTuple):
    """A score with its interval at a position of the x axis: a cost, a number of candidates, or P(yes)."""

    x: float
    score: Interval


class Svg(str):
    """A figure as one SVG document; `png` draws it as the bytes of a PNG file."""

    png: Callable[[], bytes]


def svg(paint: "Callable[[Figure], None]", title: str, height: float) -> Svg:
    """A figure `height` inches high. `paint` draws onto the empty figure."""
    found = Svg(drawn(paint, title, height, "svg").decode())
    found.png = partial(drawn, paint, title, height, "png")
    return found


def write_figure(path: Path, figure: Svg) -> None:
    """path.svg and path.png."""
    write_atomic(path.with_suffix(".svg"), figure.encode())
    write_atomic(path.with_suffix(".png"), figure.png())


def drawn(paint: "Callable[[Figure], None]", title: str, height: float, kind: Kind) -> bytes:
    """The same as the bytes of an SVG, PNG or PDF file."""
    style, figure_of = require("matplotlib.style"), require("matplotlib.figure").Figure
    with style.context(["default", STYLE]):
        figure = figure_of(figsize=(WIDTH, height), layout="constrained")
        require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)  # measures texts
        top = 1 - TITLE / height
        _leave_room(figure, top)
        figure.text(0.02, top, plain(title), fontsize=11, fontweight="bold")
        paint(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=DPI, metadata={"Title": title} | dict.fromkeys(_UNSTABLE[kind]))
    return stream.getvalue()


def add_legend(figure: "Figure", axes: "Axes", **options: Any) -> None:
    """A legend of what is drawn on `axes`, between the title and the plots."""
    top = 1 - TITLE / figure.get_figheight()
    lines = axes.get_legend_handles_labels()
    legend = figure.legend(*lines, loc="upper left", bbox_to_anchor=(0, top), alignment="left", **options)
    figure.draw_without_rendering()
    _leave_room(figure, top - legend.get_window_extent().height / figure.bbox.height)


def color_of(number: int) -> str:
    """The colour of the series of that number."""
    return PALETTE[number % len(PALETTE)]


def mark_of(number: int) -> dict[str, Any]:
    """Colour and marker of the series of that number; from the eighth on markers are hollow."""
    hollow = {"markerfacecolor": "white"} if number >= len(PALETTE) else {}
    return {"color": color_of(number), "marker": MARKERS[number % len(MARKERS)], **hollow}


def draw_band(axes: "Axes", points: Sequence[At], number: int, label: str, **style: Any) -> None:
    """A line through points, in percent, over the band of its intervals. A single point has a whisker instead."""
    x = [point.x for point in points]
    score, low, high = ([100 * bound for bound in bounds] for bounds in zip(*(point.score for point in points)))
    if len(points) > 1:
        axes.fill_between(x, low, high, color=color_of(number), alpha=0.15, linewidth=0)
    else:
        axes.vlines(x, low, high, color=color_of(number), linewidth=1.2)
    axes.plot(x, score, label=plain(label), **{**mark_of(number), **style})


def logarithmic_x(axes: "Axes", ticks: Sequence[float] = ()) -> None:
    """A logarithmic x axis with plain numbers at `ticks`, by default at 1, 2 and 5 times powers of ten."""
    ticker = require("matplotlib.ticker")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks) if ticks else ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def plain(text: str) -> str:
    """Text of which matplotlib takes nothing for a formula."""
    return text.replace("$", r"\$")


def _leave_room(figure: "Figure", top: float) -> None:
    """Lay the plots out below `top`, a share of the figure's height."""
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1, top))
