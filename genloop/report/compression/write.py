"""The page of a run of `measure_judges`: figures first, then the numbers. One HTML file without a script."""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genloop.reading import read_json_object
from genloop.report.compression.tables import NOTE, figures, lead, markdown, tables
from genloop.report.heads import Head
from genloop.report.page.provenance import config_of, facts_of
from genloop.report.rendering import percent, render
from genloop.rundir import read_run, write_atomic
from genloop.stats.intervals import interval_of


def write_compression(folder: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while a judge is left."""
    if not (folder / "summary.json").is_file():
        raise ValueError(f"{folder} is not finished, there is nothing to report; run the same command again")
    found = read_json_object(folder / "summary.json")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "table.md", markdown(found).encode())
    write_atomic(out / "table.json", (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomic(out / "index.html", render("compression.html.j2", _content(folder, found)).encode())
    return out / "index.html"


def _content(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs, by name."""
    name = folder.resolve().name
    return {
        "title": f"Smaller judges: {name}",
        "lead": lead(found),
        "note": NOTE,
        "heads": list(_heads(found)),
        "figures": [(key, _embedded(drawing)) for key, drawing in figures(found).items()],
        "tables": [{"title": title, "head": head, "rows": cells} for title, head, cells in tables(found)],
        "record": {"name": name, "job": (read_run(folder) or {})["job"], "facts": facts_of(folder)},
        "config": config_of(folder),
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


def _embedded(drawing: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"
