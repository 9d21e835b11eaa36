"""The page of images beside a reference: pictures and difference maps first, then radar, gains and distributions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genloop.data.image_reader import UnreadableImage, read_image
from genloop.metrics.measurement import Measurement
from genloop.metrics.paired.ciede import ciede2000
from genloop.metrics.paired.improvement import BASELINE, FLOOR, Improvement, number
from genloop.metrics.paired.maker import PairOptions, resized
from genloop.metrics.paired.partners import OURS, REFERENCE, SHUFFLED
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.table import PairMetric
from genloop.report.figures.canvas import Kind
from genloop.report.figures.nearness import distributions, radar
from genloop.report.page.pictures import EmbeddedImage, embed, embed_pixels
from genloop.report.page.selection import best_and_worst
from genloop.report.rendering import as_link
from genloop.stats.intervals import Interval

SHOWN, EXTREMES, SIDE = 12, 3, 160  # pairs, nearest and farthest ones; px
READING = (
    "Numbers are merits, so more is better: similarities as they are, distances negative, ratios as -|log2|. The "
    "sample are prompts, each the mean of its images. Intervals hold the true value in 95 % of cases (BCa bootstrap); "
    "p is Wilcoxon's with Holm's correction for the number of metrics; the effect is the rank biserial correlation; "
    "the normalised value lies between the floor (0) and equal images (1)."
)
FULL_SCALE = 50.0  # CIEDE2000 of the brightest colour of a difference map
_ORDER = (REFERENCE, OURS, BASELINE, FLOOR, SHUFFLED)
_MIN_SPOKES = 3  # of a radar


def content_of(
    what: Measurement,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Improvement],
    pictures: Mapping[str, bytes],
) -> dict[str, Any]:
    """What images.html.j2 needs, by name; `rows` are those of readable images, `pictures` its figures."""
    options: Any = what.metrics[name]
    sides = sides_of(what)
    metric, ranked = _ranked(what, name, rows, options.chosen())
    return {
        "title": "Images beside their reference",
        "lead": f"{len(what.pictures)} pairs of the same prompt and number.",
        "sides": sides,
        "metric": metric.replace("_", " "),
        "extremes": [(key, [_pair(what, options, sides, place) for place in places]) for key, places in ranked],
        "gallery": [_pair(what, options, sides, place) for place in chosen(len(what.pictures))],
        "num_pairs": len(what.pictures),
        "scale": embed_pixels(scale()),
        "full_scale": f"{FULL_SCALE:g}",
        "floor": FLOOR if FLOOR in sides else SHUFFLED,
        "table": [_cells(one) for one in found],
        "reading": [READING],
        "files": [
            *("table.md", "table.csv", "table.tex", "table.json"),
            *(f"{key}.{kind}" for key in pictures for kind in ("svg", "png")),
        ],
        **{key: as_link(pictures[key]) if key in pictures else None for key in ("radar", "distributions")},
    }


def _ranked(
    what: Measurement, name: str, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, PairMetric]
) -> tuple[str, list[tuple[str, list[int]]]]:
    """The first metric that has values, and the places of the nearest and farthest images by it, one a prompt."""
    places = {picture.image: place for place, picture in enumerate(what.pictures)}
    for metric, kind in metrics.items():
        values = [row["scores"].get(name, {}).get(OURS, {}).get(metric) for row in rows]
        merits = kind.merit(np.array([np.nan if value is None else value for value in values], dtype=np.float64))
        scored = [
            (float(merit), row["prompt"] or row["image"], places[row["image"]])
            for merit, row in zip(merits, rows, strict=True)
            if np.isfinite(merit) and row["image"] in places
        ]
        if scored:
            return metric, best_and_worst(scored, EXTREMES)
    return "", []


def figures(
    what: Measurement, name: str, rows: Sequence[Mapping[str, Any]], found: Sequence[Improvement], kind: Kind = "svg"
) -> dict[str, bytes]:
    """{radar, distributions: bytes of a file}, as far as there is something to draw."""
    options: Any = what.metrics[name]
    metrics: dict[str, PairMetric] = options.chosen()
    shares = radar_shares(found, metrics)
    values = {metric: _values(rows, name, metric, sides_of(what)[1:]) for metric in metrics}
    values = {metric: one for metric, one in values.items() if all(map(len, one.values()))}
    drawings = {"radar": radar(shares, "From the floor to equal images", kind)} if shares else {}
    return drawings | ({"distributions": distributions(values, "Values by side", kind)} if values else {})


def sides_of(what: Measurement) -> list[str]:
    """Reference, images, and what else is compared, in the order of the page."""
    return [side for side in _ORDER if side in what.sides]


def scale() -> np.ndarray:
    """Every colour of a difference map (H, W, 3) uint8, from 0 to `FULL_SCALE`."""
    return _colours(np.tile(np.linspace(0, FULL_SCALE, 96), (8, 1)))


def chosen(count: int) -> list[int]:
    """Places of pairs that are shown, spread over all."""
    shown = min(count, SHOWN)
    return [number * count // shown for number in range(shown)]


def radar_shares(found: Sequence[Improvement], metrics: Mapping[str, PairMetric]) -> dict[str, dict[str, float]]:
    """{side: {metric: share of the way from the floor to equal images}}; {} for fewer than three such metrics."""
    over: dict[str, dict[str, Improvement]] = {}
    for one in found:
        over.setdefault(one.over, {})[one.metric] = one
    images: dict[str, float] = {}
    baseline: dict[str, float] = {}
    lowest = over.get(FLOOR) or over.get(SHUFFLED) or {}
    for metric, one in lowest.items():
        if np.isnan(one.normalised.estimate):
            continue
        images[metric] = one.normalised.estimate
        if metric in over.get(BASELINE, {}):
            room = metrics[metric].ceiling - one.gain.before
            baseline[metric] = (over[BASELINE][metric].gain.before - one.gain.before) / room
    if len(images) < _MIN_SPOKES:
        return {}
    return {OURS: images} | ({BASELINE: baseline} if baseline.keys() == images.keys() else {})


def difference_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Images (H, W, 3) uint8 of one size -> CIEDE2000 of every pixel as a colour, black for 0, always on one scale"""
    return _colours(ciede2000(Pixels(one[None]).lab, Pixels(other[None]).lab)[0])


def _pair(what: Measurement, options: PairOptions, sides: Sequence[str], place: int) -> dict[str, Any]:
    """One row of the gallery: what every side shows, and the difference of image and reference."""
    paths = {side: what.sides[side].folder / what.sides[side].pictures[place].image for side in sides}
    shown: list[EmbeddedImage | None] = [embed(paths[side], SIDE) for side in sides]
    try:
        pixels = [read_image(paths[side]) for side in (OURS, REFERENCE)]
    except (OSError, UnreadableImage):
        return {"text": _text(what, place), "shown": shown, "difference": None}
    if options.size is not None:
        pixels = [resized(image, options.size) for image in pixels]
    return {"text": _text(what, place), "shown": shown, "difference": embed_pixels(difference_map(*pixels), SIDE)}


def _text(what: Measurement, place: int) -> str:
    picture = what.pictures[place]
    return picture.prompt.text if picture.prompt else picture.image


def _colours(values: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 3) uint8"""
    from matplotlib import colormaps

    return (colormaps["magma"](np.clip(values / FULL_SCALE, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def _values(rows: Sequence[Mapping[str, Any]], name: str, metric: str, sides: Sequence[str]) -> dict[str, list[float]]:
    known = {side: [row["scores"].get(name, {}).get(side, {}).get(metric) for row in rows] for side in sides}
    return {side: [value for value in values if value is not None] for side, values in known.items()}


def _cells(one: Improvement) -> list[tuple[str, str]]:
    """A row of the table: what a cell says, and the interval below it"""
    change = one.gain
    low, high = (f"{100 * bound:.0f}" for bound in change.wins[1:])
    plain = [one.metric.replace("_", " "), one.better, one.over, str(change.prompts)]
    return [
        *((text, "") for text in [*plain, number(change.before), number(change.after)]),
        _with_interval(change.difference),
        (number(one.p_holm), ""),
        (f"{100 * change.wins.estimate:.0f} %", f"{low} to {high}"),
        (number(change.effect), ""),
        _with_interval(one.normalised),
    ]


def _with_interval(found: Interval) -> tuple[str, str]:
    is_known = not np.isnan(found.low)
    return number(found.estimate), f"{number(found.low)} to {number(found.high)}" if is_known else ""
