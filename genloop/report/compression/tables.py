"""Tables and figures of a run of `measure_judges`, as cells, as Markdown and as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genloop.report.figures.canvas import At, Svg
from genloop.report.figures.frontier import Dot, frontier_svg
from genloop.stats.intervals import Interval, interval_of
from genloop.stats.markdown import percent, table_head, table_row

Table = tuple[str, Sequence[str], list[list[str]]]  # title, head, cells
AXES = {
    "weights": "megabytes of weights in memory",
    "flops": "operations for one judged pair, 2 a multiply-add",
    "seconds": "median seconds for one judged pair",
}
CRITERIA = {"chance": "accuracy above 1/2", "raw": "raw accuracy"}
NOTE = (
    "95 % intervals, paired by pair of answers, images are clusters. Kept raw is the ratio of accuracies, of which a "
    "coin keeps most; above chance it is (accuracy - 1/2) over that of the original. pass: the lower bound reaches "
    "the goal; undefined: the original is not above chance. Medians and 95th percentiles of seconds are bounded by "
    "order statistics, – where the calls are too few for a bound. Memory is the peak of loading and one pair."
)


def lead(found: Mapping[str, Any]) -> str:
    """What was compared with what."""
    return (
        f"{found['pairs']} pairs about {found['clusters']} images, asked by {found['reading']}; the goal is to keep "
        f"{100 * found['goal']:g} % of the {CRITERIA[found['criterion']]} of {found['original']}."
    )


def markdown(found: Mapping[str, Any]) -> str:
    """Every table of the summary."""
    parts = [
        f"## {title}\n\n" + "\n".join([*table_head(head), *map(table_row, rows)]) for title, head, rows in tables(found)
    ]
    return "\n\n".join([lead(found), *parts, NOTE]) + "\n"


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Title, head and cells of each."""
    judges = found["judges"]
    head: Sequence[str] = ("judge", "accuracy", "minus the original", "kept, raw", "kept above chance", "goal", "n")
    yield "What is kept", head, [_kept_row(name, one, found["pairs"]) for name, one in judges.items()]
    head = ("judge", "parameters", "trained", "weights, MB", "by dtype", "file, MB", "adapters, MB", "peak, MB")
    yield "Size", head, [_size_row(name, one) for name, one in judges.items()]
    head = ("judge", "GFLOP a pair", "of the original", "median ms", "of the original", "95th percentile, ms", "calls")
    yield "Work", head, [_work_row(name, one) for name, one in judges.items()]
    rows = [[name, _what(one), _done(one["compression"])] for name, one in judges.items()]
    yield "Judges", ("judge", "what it is", "what was done"), rows


def figures(found: Mapping[str, Any]) -> dict[str, Svg]:
    """{cost: accuracy against it as an SVG document} of every cost that all judges have."""
    drawn = {}
    for key, words in AXES.items():
        costs = {name: _cost(one, key) for name, one in found["judges"].items()}
        if not all(costs.values()):
            continue
        dots = [
            Dot(name, At(costs[name] or 0.0, interval_of(one["accuracy"])), one["verdict"])
            for name, one in found["judges"].items()
        ]
        title = f"Accuracy against {key}"
        drawn[key] = frontier_svg([], dots, title=title, cost=words, score="accuracy in %, with 95 % intervals")
    return drawn


def _cost(one: Mapping[str, Any], key: str) -> float | None:
    if key == "weights":
        return one["weights"] and one["weights"] / 1e6
    return one["flops"] or None if key == "flops" else float(one["latency"]["p50"]["estimate"])


def _kept_row(name: str, one: Mapping[str, Any], n: int) -> list[str]:
    kept = one["kept"]
    shares = ["–", "–", "–"]
    if kept is not None:
        shares = [_points(interval_of(kept["difference"])), percent(interval_of(kept["raw"]))]
        shares.append("undefined" if kept["chance"] is None else percent(interval_of(kept["chance"])))
    return [name, percent(interval_of(one["accuracy"])), *shares, one["verdict"], str(n)]


def _size_row(name: str, one: Mapping[str, Any]) -> list[str]:
    whole, trained = one["parameters"], one["trained"]
    share = f"{trained:,} ({100 * trained / whole:.2f} %)" if trained and whole else "–"
    dtypes = ", ".join(f"{dtype} {_megabytes(size)}" for dtype, size in one["bytes_by_dtype"].items())
    sizes = [_megabytes(one[key]) for key in ("checkpoint_bytes", "adapter_bytes", "peak_memory")]
    return [name, f"{whole:,}" if whole else "–", share, _megabytes(one["weights"]), dtypes or "–", *sizes]


def _work_row(name: str, one: Mapping[str, Any]) -> list[str]:
    seconds, ratios = one["latency"], one["of original"]
    return [
        name,
        f"{one['flops'] / 1e9:.4g}",
        _times(ratios["flops"]),
        _milliseconds(seconds["p50"]),
        _times(ratios["seconds"]),
        _milliseconds(seconds["p95"]),
        f"{seconds['n']} on {one['device']}, threads {one['threads']}",
    ]


def _what(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in one["what"].items() if key != "fingerprint")


def _done(compression: Mapping[str, Any] | None) -> str:
    if compression is None:
        return "–"
    asked = {key: value for key, value in compression["reduction"].items() if value is not None and value != "none"}
    layers = {"text_layers", "vision_layers"} & set(asked)
    return ", ".join(f"{key} {value}" for key, value in asked.items() if key != "leave_out" or layers)


def _points(difference: Interval) -> str:
    estimate, low, high = (f"{100 * value:+.1f}" for value in difference)
    return f"{estimate} ({low} to {high})"


def _milliseconds(one: Mapping[str, float | None]) -> str:
    estimate, low, high = (None if one[key] is None else 1000 * (one[key] or 0.0) for key in Interval._fields)
    bounds = " to ".join("–" if bound is None else f"{bound:.4g}" for bound in (low, high))
    return f"{estimate:.4g} ({bounds})"


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.3g} x"


def _megabytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.4g}"
