"""Rows of pairs -> how much nearer the images are to the reference than every other side, metric by metric.

Numbers are merits (more is better; for a ratio -|log2|), so that one sign means the same everywhere. The floor of a
normalised gain is the side `floor`, else `shuffled`; its ceiling is that of equal images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genloop.metrics.paired.partners import OURS, SHUFFLED
from genloop.metrics.paired.table import PairMetric
from genloop.metrics.scores import owners
from genloop.stats.gains import Gain, gain, position
from genloop.stats.intervals import Interval
from genloop.stats.markdown import table_head, table_row
from genloop.stats.paired import holm

SIGNIFICANT = 0.05
FLOOR, BASELINE = "floor", "baseline"
HEADER = (
    *("metric", "better", "over", "prompts", "before", "after", "gain", "low", "high", "p_holm", "win_percent"),
    *("effect", "normalised", "normalised_low", "normalised_high"),
)


@dataclass(frozen=True, slots=True)
class Improvement:
    """The images against one other side in one metric; values are merits."""

    metric: str
    better: str
    over: str
    gain: Gain
    p_holm: float  # corrected for the number of metrics
    normalised: Interval  # of the images, 0 at the floor and 1 at the ceiling; NaN where either is not known

    def cells(self) -> tuple[Any, ...]:
        """The numbers of `HEADER`."""
        found, share = self.gain, self.normalised
        return (
            *(self.metric, self.better, self.over, found.prompts, found.before, found.after),
            *(*found.difference, self.p_holm, 100 * found.wins.estimate, found.effect, *share),
        )


def improvements(
    rows: Sequence[Mapping[str, Any]], name: str, metrics: Mapping[str, PairMetric], seed: int
) -> list[Improvement]:
    """By other side, then by metric. Pairs of which either side has no value are left out."""
    sides = list(dict.fromkeys(side for row in rows for side in row["scores"].get(name, ())))
    floor = FLOOR if FLOOR in sides else SHUFFLED
    shares = {metric: _share(rows, name, metric, what, floor, seed) for metric, what in metrics.items()}
    found = []
    for over in (side for side in (BASELINE, FLOOR, SHUFFLED) if side in sides):
        gains: dict[str, Gain] = {}
        for metric, what in metrics.items():
            before, after, prompts = _merits(rows, name, metric, what, (over, OURS))
            if len(before):
                gains[metric] = gain(before, after, prompts, seed)
        for (metric, one), p in zip(gains.items(), holm([one.p for one in gains.values()])):
            found.append(Improvement(metric, metrics[metric].better, over, one, p, shares[metric]))
    return found


def as_json(found: Sequence[Improvement]) -> list[dict[str, Any]]:
    """Plain values; what is not known is null."""
    return [_plain(asdict(one)) for one in found]


def markdown(found: Sequence[Improvement]) -> str:
    """A table, and what it says."""
    lines = table_head(
        ["metric", "over", "n", "before", "after", "gain, 95 % interval", "p", "wins", "effect", "share"]
    )
    for one in found:
        change, wins = one.gain, one.gain.wins
        cells = [one.metric, one.over, str(change.prompts), number(change.before), number(change.after)]
        cells += [spanned(change.difference), number(one.p_holm), f"{100 * wins.estimate:.0f} %"]
        lines.append(table_row([*cells, number(change.effect), spanned(one.normalised)]))
    return (
        "\n".join(lines)
        + "\n\nMerits, more is better: similarities as they are, distances negative, ratios as -|log2|. n prompts, "
        "each the mean of its images; BCa intervals; Wilcoxon's p, Holm-corrected for the metrics; wins: of prompts; "
        "effect: rank biserial; share: the images between the floor (0) and equal images (1).\n"
    )


def number(value: float) -> str:
    """Four digits; empty where it is not known."""
    return "" if math.isnan(value) else f"{value:.4g}"


def spanned(found: Interval) -> str:
    """An estimate with its interval."""
    if math.isnan(found.low):
        return number(found.estimate)
    return f"{number(found.estimate)} ({number(found.low)} to {number(found.high)})"


def _share(
    rows: Sequence[Mapping[str, Any]], name: str, metric: str, what: PairMetric, floor: str, seed: int
) -> Interval:
    low, value, prompts = _merits(rows, name, metric, what, (floor, OURS))
    if not len(low) or not math.isfinite(what.ceiling):
        return Interval(math.nan, math.nan, math.nan)
    return position(low, value, prompts, what.ceiling, seed)


def _merits(
    rows: Sequence[Mapping[str, Any]], name: str, metric: str, what: PairMetric, sides: tuple[str, str]
) -> tuple[list[float], list[float], list[Any]]:
    """Merits of two sides, image by image, and the prompt of each; only images where both are known."""
    values, prompts = [], []
    for row, owner in zip(rows, owners(rows), strict=True):
        both = [row["scores"].get(name, {}).get(side, {}).get(metric) for side in sides]
        if None not in both:
            values.append(both)
            prompts.append(owner)
    merits = what.merit(np.array(values, dtype=np.float64).reshape(-1, 2))
    return merits[:, 0].tolist(), merits[:, 1].tolist(), prompts


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return {key: _plain(part) for key, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
