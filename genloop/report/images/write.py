"""How near images are to a reference, written for everybody: HTML, Markdown, CSV, LaTeX, JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from genloop.metrics.measurement import Measurement, file_name
from genloop.metrics.paired.improvement import HEADER, Improvement, as_json, improvements, markdown, number
from genloop.report.audit.sheet import to_csv
from genloop.report.figures.canvas import Kind
from genloop.report.images.latex import latex_table
from genloop.report.images.page import content_of, figures
from genloop.report.images.published import write_published
from genloop.report.rendering import render
from genloop.rundir import write_atomic

NUM_TEXTS = 3  # columns of HEADER that hold words
Layout = Literal["page", "published"]


def write_pairs(
    what: Measurement, rows: Sequence[Mapping[str, Any]], out: Path, seed: int, layout: Layout = "page"
) -> None:
    """Write OUT/METRIC of every metric of pairs: what `write_comparison` writes. `rows` are those of the job."""
    for name in what.needs("pairs"):
        write_comparison(what, name, rows, out / file_name(name), seed, layout)


def write_comparison(
    what: Measurement,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    seed: int,
    layout: Layout = "page",
) -> Path:
    """Write index.html, table.md, .csv, .tex and .json, and figures of one metric of pairs -> the page.

    `format=published` adds the folders of genloop/report/images/published.py.
    """
    readable = [row for row in rows if "reference" not in row and not row["problem"]]
    options: Any = what.metrics[name]
    found = improvements(readable, name, options.chosen(), seed)
    kinds: tuple[Kind, ...] = ("svg", "png")
    drawn = {kind: figures(what, name, readable, found, kind) for kind in kinds}
    page = render("images.html.j2", content_of(what, name, readable, found, drawn["svg"]))
    texts = tables(found) | {"index.html": page}
    places = [folder]
    if layout == "published":
        write_published(what, name, readable, found, texts, folder / "published")
        places.append(folder / "published" / "comparison_output")  # where the page lies once more
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        for kind, pictures in drawn.items():
            for figure, content in pictures.items():
                write_atomic(place / f"{figure}.{kind}", content)
    for file, text in texts.items():
        write_atomic(folder / file, text.encode())
    return folder / "index.html"


def tables(found: Sequence[Improvement]) -> dict[str, str]:
    """{file: its text}"""
    cells = [[number(cell) if isinstance(cell, float) else str(cell) for cell in one.cells()] for one in found]
    exact = [["" if cell != cell else cell for cell in one.cells()] for one in found]
    return {
        "table.md": markdown(found),
        "table.csv": to_csv([HEADER, *exact]),
        "table.tex": latex_table(HEADER, cells, num_texts=NUM_TEXTS),
        "table.json": json.dumps(as_json(found), indent=1) + "\n",
    }
