"""How near images are to a reference, written for everybody: HTML, Markdown, CSV, LaTeX, JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.metrics.measurement import Measurement, file_name
from genloop.metrics.paired.improvement import HEADER, as_json, improvements, markdown, number
from genloop.report.audit.sheet import to_csv
from genloop.report.images.latex import latex_table
from genloop.report.images.page import page
from genloop.rundir import write_atomic

NUM_TEXTS = 3  # columns of HEADER that hold words


def write_pairs(what: Measurement, rows: Sequence[Mapping[str, Any]], out: Path, seed: int) -> None:
    """Write RUN/METRIC/index.html and table.md, .csv, .tex and .json of metrics of pairs.

    `rows` are those of the job.
    """
    readable = [row for row in rows if "reference" not in row and not row["problem"]]
    for name in what.needs("pairs"):
        options: Any = what.metrics[name]
        found = improvements(readable, name, options.chosen(), seed)
        cells = [[number(cell) if isinstance(cell, float) else str(cell) for cell in one.cells()] for one in found]
        exact = [["" if cell != cell else cell for cell in one.cells()] for one in found]
        texts = {
            "table.md": markdown(found),
            "table.csv": to_csv([HEADER, *exact]),
            "table.tex": latex_table(HEADER, cells, num_texts=NUM_TEXTS),
            "index.html": page(what, name, readable, found),
            "table.json": json.dumps(as_json(found), indent=1) + "\n",
        }
        folder = out / file_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            write_atomic(folder / file, text.encode())
