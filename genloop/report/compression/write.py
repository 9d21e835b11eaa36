"""The page of a run of `measure_judges`: figures first, then the numbers. One HTML file without a script."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genloop.reading import read_json_object
from genloop.report.cards import Head
from genloop.report.compression.tables import NOTE, figures, lead, markdown, tables
from genloop.report.figures.canvas import Svg
from genloop.report.files import record_of, write_files
from genloop.report.rendering import as_link, percent
from genloop.stats.intervals import interval_of


def write_compression(folder: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while a judge is left."""
    if not (folder / "summary.json").is_file():
        raise ValueError(f"{folder} is not finished, there is nothing to report; run the same command again")
    found = read_json_object(folder / "summary.json")
    drawn = {f"accuracy-{cost}": figure for cost, figure in figures(found).items()}
    return write_files(
        out, "compression.html.j2", _content(folder, found, drawn), table=markdown(found), numbers=found, figures=drawn
    )


def _content(folder: Path, found: Mapping[str, Any], drawn: Mapping[str, Svg]) -> dict[str, Any]:
    """What the template needs, by name."""
    return {
        "title": f"Smaller judges: {folder.resolve().name}",
        "lead": lead(found),
        "reading": [NOTE],
        "heads": list(_heads(found)),
        "figures": [(name, as_link(figure)) for name, figure in drawn.items()],
        "table": (shown := [{"title": title, "head": head, "rows": cells} for title, head, cells in tables(found)])[0],
        "tables": shown[1:],
        "records": [record_of(folder)],
    }


def _heads(found: Mapping[str, Any]) -> Iterator[Head]:
    """The original's accuracy, then what each smaller judge keeps."""
    for name, one in found["judges"].items():
        accuracy, kept = interval_of(one["accuracy"]), one["kept"]
        told = f"accuracy {percent(accuracy.estimate)} % ({percent(accuracy.low)} to {percent(accuracy.high)})"
        if kept is None:
            yield Head(name, f"{percent(accuracy.estimate)} %", ("the original's accuracy", told))
            continue
        share = kept["chance"] if found["criterion"] == "chance" else kept["raw"]
        value = "undefined" if share is None else f"{percent(share['estimate'], 0)} %"
        bounds = "" if share is None else f"kept, {percent(share['low'], 0)} to {percent(share['high'], 0)} %"
        yield Head(name, value, (f"{one['verdict']}: {bounds}" if bounds else "the original is not above chance", told))
