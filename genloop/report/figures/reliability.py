"""The reliability diagram of a judge (DeGroot and Fienberg 1983): the share of yes against the P(yes) it predicted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genloop.report.figures.canvas import MUTED, At, Svg, add_legend, color_of, draw_band, svg
from genloop.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reliability_svg(overall: Mapping[str, Mapping[str, Any]], *, title: str = "Calibration of P(yes)") -> Svg:
    """{question: its numbers} of `genloop.stats.judges.summary.summarize_judge` -> an SVG document.

    One curve a question, on the dashed diagonal where the judge is calibrated; below, the number of answers by bin.
    """

    def paint(figure: "Figure") -> None:
        heights = [4.0, *(0.7 for _ in overall)]
        grid = {"height_ratios": heights}
        plot, *histograms = figure.subplots(len(heights), sharex=True, squeeze=False, gridspec_kw=grid).flat
        plot.plot([0, 100], [0, 100], color=MUTED, linestyle="--", linewidth=1)
        for number, (question, row) in enumerate(overall.items()):
            points = [At(100 * bar["p_yes"], Interval(*bar["yes"])) for bar in row["reliability"]]
            error, low, high = (100 * share for share in row["ece"])
            label = f"{question}: calibration error {error:.1f} % ({low:.1f} to {high:.1f}), {row['n']:,} answers"
            draw_band(plot, points, number, label)
            bars = histograms[number]
            places = [50 * (bar["low"] + bar["high"]) for bar in row["reliability"]]
            counts = [bar["n"] for bar in row["reliability"]]
            drawn = bars.bar(places, counts, width=8, color=color_of(number), alpha=0.6)
            bars.bar_label(drawn, [f"{count:,}" for count in counts], fontsize=7, padding=1)
            bars.set(ylim=(0, 1.6 * max(counts)), yticks=[])
            bars.grid(visible=False)
            bars.spines["left"].set_visible(False)
        plot.set(xlim=(0, 100), ylim=(-2, 102), ylabel="share of yes in %, with 95 % bands")
        if histograms:
            histograms[0].set_title("answers in each bin", fontsize=9, color=MUTED, loc="left")
            add_legend(figure, plot)
        (histograms or [plot])[-1].set_xlabel("P(yes) in %, mean of a bin")

    return svg(paint, title, 4.6 + 0.8 * len(overall))
