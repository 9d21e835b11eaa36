"""Curves of a training as small plots: which numbers share one, and where their lines go.

A plot is an SVG of 100 x 100 units that stretches with the page; its texts stand beside it, so they keep their size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from genloop.runs.trainings import Training

Points = Sequence[tuple[int, float]]
SECTIONS = ("Judges and held-out data", "Training", "Gradient norms", "Looks of the images", "Speed and rate")
_LOOKS = ("dark_share", "bright_share", "edge_energy", "color_entropy", "saturation")
_SPEED = ("lr", "steps_per_s", "samples_per_s", "cpu_seconds", "gpu_peak_bytes")
_SIDES = [(prefix, side) for prefix in ("", "held_out_") for side in ("chosen", "rejected")]
_TOGETHER = {  # key -> the plot that it shares with others
    "preview_judge_change": "change of the judges since step 0",
    "preview_held_out_judge_change": "change of the judges since step 0",
    "preview_judge": "judges on the fixed prompts",
    "preview_held_out_judge": "judges on the fixed prompts",
    **{f"{prefix}{side}_log_prob": f"{prefix}log-probability" for prefix, side in _SIDES},
    **{f"{prefix}{side}_log_ratio": f"{prefix}log-ratio" for prefix, side in _SIDES},
}
_FAR = 20  # times the spread of the middle values: what lies further is drawn at the edge


@dataclass(frozen=True, slots=True)
class CurveLine:
    """One number: its name, its path, the polygon of its intervals ("" without), its only point, its last value."""

    name: str
    path: str
    band: str
    point: tuple[float, float] | None
    last: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over the same steps; `marks` are where alarms were raised, in percent of the width."""

    title: str
    lines: tuple[CurveLine, ...]
    high: str
    low: str
    first: int
    last: int
    zero: float | None  # where 0 is, when it lies inside
    marks: tuple[float, ...]
    keys: tuple[str, ...]  # of the numbers, as metrics.jsonl has them


def sections(training: Training) -> list[tuple[str, list[Plot]]]:
    """Every number that has changed over the steps or has an interval, by section."""
    plots: dict[str, dict[str, list[str]]] = {name: {} for name in SECTIONS}
    for key in sorted(training.series, key=lambda key: key != "loss"):  # the loss first, else as they appear
        if not (key.startswith("alarm_") or key.endswith(("_low", "_high", "_pairs", "_se"))):
            plots[_section(key)].setdefault(_title(key), []).append(key)
    found = []
    for name, groups in plots.items():
        drawn = [_plot(title, keys, training) for title, keys in groups.items()]
        if drawn:
            found.append((name, drawn))
    return found


def number(value: float) -> str:
    """A value for a reader: three digits, with a minus as wide as a plus."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _section(key: str) -> str:
    if key in _SPEED or key.endswith("_bytes"):
        return "Speed and rate"
    if key.startswith("grad_norm"):
        return "Gradient norms"
    if key.removeprefix("preview_") in _LOOKS:
        return "Looks of the images"
    is_held_out = key.startswith(("preview_", "held_out_", "reward", "val_")) or key.endswith(
        ("_auc", "_within", "_accuracy")
    )
    return "Judges and held-out data" if is_held_out else "Training"


def _title(key: str) -> str:
    if key.startswith("grad_norm"):
        return "gradient norms"
    return _TOGETHER.get(key, key.removeprefix("preview_")).replace("_", " ")


def _plot(title: str, keys: Sequence[str], training: Training) -> Plot:
    series = {key: training.series[key] for key in keys}
    bands = {key: band for key in keys if (band := _band(key, training.series))}
    shown = [value for points in series.values() for _, value in points]
    low, high = _range(shown, [value for band in bands.values() for row in band for value in row[1:]])
    first, last = 0, max(training.total if not training.stopped else 0, training.done, 1)

    def x(step: int) -> float:
        return round(100 * (step - first) / (last - first), 2)

    def y(value: float) -> float:
        return round(100 - 100 * (min(max(value, low), high) - low) / (high - low), 2)

    lines = []
    for key, points in series.items():
        path = "M" + "L".join(f"{x(step):g} {y(value):g}" for step, value in points) if len(points) > 1 else ""
        band = bands.get(key, [])
        around = [(x(step), y(top)) for step, _, top in band] + [(x(step), y(bottom)) for step, bottom, _ in band[::-1]]
        polygon = "M" + "L".join(f"{a:g} {b:g}" for a, b in around) + "z" if len(band) > 1 else ""
        single = (x(points[0][0]), y(points[0][1])) if len(points) == 1 else None
        lines.append(CurveLine(_name(key), path, polygon, single, number(points[-1][1])))
    zero = y(0.0) if low < 0 < high else None
    marks = tuple(sorted({x(alarm["step"]) for alarm in training.alarms}))
    return Plot(title, tuple(lines), number(high), number(low), first, last, zero, marks, tuple(keys))


def _name(key: str) -> str:
    """What a line is called among those of its plot."""
    short = key.removeprefix("preview_").removesuffix("_change").replace("_", " ")
    return {"grad norm": "all"}.get(short, short.removeprefix("grad norm "))


def _band(key: str, series: Mapping[str, Points]) -> list[tuple[int, float, float]]:
    """Step, lower and upper bound, where a number has an interval."""
    low, high = dict(series.get(f"{key}_low", ())), dict(series.get(f"{key}_high", ()))
    return [(step, low[step], high[step]) for step in low if step in high]


def _range(values: Sequence[float], bounds: Sequence[float]) -> tuple[float, float]:
    """Where the axis begins and ends; values that are far from all others do not stretch it."""
    ordered = sorted(values)
    quarter = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    reach = _FAR * max(quarter[1] - quarter[0], 1e-3 * max(map(abs, quarter)), 1e-12)
    near = [value for value in (*ordered, *bounds) if quarter[0] - reach <= value <= quarter[1] + reach]
    low, high = min(near), max(near)
    return (low, high) if high > low else (low - max(0.1 * abs(low), 1e-6), high + max(0.1 * abs(high), 1e-6))


def figures(training: Training) -> Iterator[tuple[str, str, str, str]]:
    """Of every number that is no speed: its name, first and last value, and the interval of the last."""
    for key, points in training.series.items():
        if key.endswith(("_low", "_high")) or key.startswith("alarm_") or _section(key) == "Speed and rate":
            continue
        band = _band(key, training.series)
        interval = f"{number(band[-1][1])} to {number(band[-1][2])}" if band and band[-1][0] == points[-1][0] else ""
        yield key, number(points[0][1]), number(points[-1][1]), interval
