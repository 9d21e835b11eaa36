"""The files of a page: index.html, the numbers as table.md and table.json, figures as SVG and PNG."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.report.figures.canvas import Svg, write_figure
from genloop.report.page.provenance import config_of, facts_of
from genloop.report.rendering import render
from genloop.rundir import read_run, write_atomic


def write_files(
    out: Path,
    template: str,
    content: Mapping[str, Any],
    *,
    table: str,
    numbers: Any,
    figures: Mapping[str, Svg] | None = None,
) -> Path:
    """Write all of them into `out` -> the path of the page, which is written last and links the others."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = figures or {}
    for name, figure in drawn.items():
        write_figure(out / name, figure)
    write_atomic(out / "table.md", table.encode())
    write_atomic(out / "table.json", (json.dumps(numbers, indent=1, ensure_ascii=False) + "\n").encode())
    files = ["table.md", "table.json", *(f"{name}.{kind}" for name in drawn for kind in ("svg", "png"))]
    write_atomic(out / "index.html", render(template, {**content, "files": files}).encode())
    return out / "index.html"


def record_of(folder: Path) -> dict[str, Any]:
    """The provenance of one run, as the end of every page shows it."""
    job = (read_run(folder) or {}).get("job", "")
    return {
        "run": None,
        "name": folder.resolve().name,
        "job": job,
        "facts": facts_of(folder),
        "config": config_of(folder),
    }
