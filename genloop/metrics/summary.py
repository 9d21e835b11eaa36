"""Rows and features of all units -> every metric's numbers, as JSON and as a table for people."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genloop.metrics.features import extractor_mark
from genloop.metrics.makers import Line, metric_maker
from genloop.metrics.measurement import Measurement, feature_file, file_name
from genloop.metrics.scores import owners
from genloop.metrics.set_distances import Gaussian, grouped_moments
from genloop.metrics.statistics import Block, Features, has_statistics, open_statistics, save_statistics
from genloop.records import Unit
from genloop.stats.markdown import table_head, table_row

Row = Mapping[str, Any]
_SHOWN = 5  # unreadable images that are named


def conclude(
    what: Measurement, units: Sequence[Unit], rows: Sequence[Row], out: Path, seed: int
) -> dict[str, list[Line]]:
    """{metric: its numbers}, in the order in which they were asked for; RUN/statistics keeps the images' features."""
    readable = [row for row in rows if "reference" not in row and not row["problem"]]
    found: dict[str, list[Line]] = {}
    sets = {name: _sets(what, name, units, rows, out) for name in what.features}
    for name, options in what.metrics.items():
        maker: Any = metric_maker(name)
        if name in what.scores:
            found[name] = maker.conclude(options, name, readable, seed)
        else:
            found[name] = maker.conclude(options, name, *sets[what.kept_as(name)], seed)
    return found


def summary_of(rows: Sequence[Row], lines: Mapping[str, Sequence[Line]]) -> dict[str, Any]:
    """Plain values; what is not known is null."""
    ours = [row for row in rows if "reference" not in row]
    return {
        "images": len(ours),
        "prompts": len({row["prompt_index"] for row in ours} - {None}),
        "reference_images": len(rows) - len(ours),
        "unreadable": [row.get("image", row.get("reference")) for row in rows if row["problem"]],
        "metrics": {name: [_plain(line) for line in found] for name, found in lines.items()},
    }


def format_table(rows: Sequence[Row], lines: Mapping[str, Sequence[Line]]) -> str:
    """Every number with its 95 % interval and n."""
    text = table_head(["metric", "value", "95 % interval", "n", ""])
    for found in lines.values():
        for line in found:
            span = "" if math.isnan(line.low) else f"{_number(line.low)} to {_number(line.high)}"
            text.append(table_row([line.name, _number(line.value), span, str(line.n), line.note]))
    if lost := [one.get("image", one.get("reference")) for one in rows if one["problem"]]:
        shown = ", ".join(map(str, lost[:_SHOWN])) + (", ..." if len(lost) > _SHOWN else "")
        text.append(f"\n{len(lost)} images could not be read and were left out: {shown}")
    return "\n".join(text) + "\n"


def _sets(
    what: Measurement, name: str, units: Sequence[Unit], rows: Sequence[Row], out: Path
) -> tuple[Features, Features | Gaussian | None]:
    """The features of the images, which are saved, and of what they are compared with."""
    mark = extractor_mark(what.features[name], what.resolve)
    num = len(rows) - len(what.others)
    images = _features(name, units, rows, range(num), out)
    gaussian = grouped_moments(images.blocks()).gaussian()
    save_statistics(out / "statistics" / f"{file_name(name)}.npz", images, gaussian, mark)
    if what.reference is None:
        return images, None
    if has_statistics(what.reference):
        return images, open_statistics(what.reference, mark)
    return images, _features(name, units, rows, range(num, len(rows)), out)


def _features(name: str, units: Sequence[Unit], rows: Sequence[Row], items: range, out: Path) -> Features:
    """Of a range of items. Images of one prompt are a cluster, others one each; clusters are numbered as they come."""
    owned = owners(rows[items.start : items.stop])
    numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owned))}
    clusters = np.array([numbers[owner] for owner in owned], dtype=np.int64)

    def part(unit: Unit) -> Callable[[], Block]:
        first, last = max(unit.start, items.start), min(unit.stop, items.stop)

        def read() -> Block:
            found = np.load(feature_file(out, name, unit))
            return found[first - unit.start : last - unit.start], clusters[first - items.start : last - items.start]

        return read

    return Features([part(unit) for unit in units if unit.start < items.stop and unit.stop > items.start])


def _plain(line: Line) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in line._asdict().items()}


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
