"""The comparison as a tree of folders with the names of the published tool, for those whose scripts expect them.

    sdxl_images             images of the reference
    weakmodel_images        the images, and those of the other sides in a folder each
    checkpoints             SIDE.json: which generator drew a side; links to its files where they are there
    metrics                 the table as CSV and JSON, and scores.csv, a line an image and side
    comparison_output       the page, and pictures of pairs side by side with their difference map
    research_comparisons    the table as Markdown
    research_paper_materials  the table as LaTeX, figures as PDF
    visualization           figures and difference maps as PNG, and the colour scale of the maps

Images lie there under PROMPT_NUMBER as copies of the same bytes. Whatever is there already is written again.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genloop.config import read_yaml
from genloop.data.image_reader import UnreadableImage, read_image
from genloop.data.members import read_any
from genloop.metrics.measurement import Measurement
from genloop.metrics.paired.improvement import Improvement
from genloop.metrics.paired.maker import resized
from genloop.metrics.paired.partners import OURS, REFERENCE, SHUFFLED, Side
from genloop.report.audit.sheet import to_csv
from genloop.report.images.page import chosen, difference_map, figures, scale, sides_of
from genloop.rundir import write_atomic
from genloop.runs.lineage import locate

FOLDERS = (
    *("checkpoints", "comparison_output", "metrics", "research_comparisons", "research_paper_materials"),
    *("sdxl_images", "visualization", "weakmodel_images"),
)
_GAP = 4  # px between the pictures of a pair
_FILES = ("pipeline", "lora", "checkpoint", "unet")  # options of a generator that name files


def write_published(
    what: Measurement,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Improvement],
    texts: Mapping[str, str],
    folder: Path,
) -> None:
    """Write the tree; `texts` are {file: content} of the tables and the page."""
    for part in FOLDERS:
        (folder / part).mkdir(parents=True, exist_ok=True)
    places = {
        "comparison_output": ("index.html", "table.md", "table.csv", "table.tex", "table.json"),
        "metrics": ("table.csv", "table.json"),
        "research_comparisons": ("table.md",),
        "research_paper_materials": ("table.tex",),
    }
    for part, files in places.items():
        for file in files:
            write_atomic(folder / part / file, texts[file].encode())
    write_atomic(folder / "metrics" / "scores.csv", to_csv(list(_scores(name, rows))).encode())
    for kind, part in (("pdf", "research_paper_materials"), ("png", "visualization")):
        for figure, content in figures(what, name, rows, found, kind).items():  # type: ignore[arg-type]
            write_atomic(folder / part / f"{figure}.{kind}", content)
    _write_images(what, folder)
    _write_pairs(what, name, folder)
    for side in sides_of(what):
        _write_origin(what.sides[side], side, folder / "checkpoints")


def _scores(name: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """A line an image and side."""
    metrics = list(next(iter(rows[0]["scores"][name].values()))) if rows else []
    yield ["prompt", "sample", "image", "side", *metrics]
    for row in rows:
        for side, values in row["scores"].get(name, {}).items():
            shown = ["" if values[metric] is None else values[metric] for metric in metrics]
            yield [row["prompt"] or "", row["sample"], row["image"], side, *shown]


def _write_images(what: Measurement, folder: Path) -> None:
    for side in sides_of(what):
        if side == SHUFFLED:  # the reference again
            continue
        part = "sdxl_images" if side == REFERENCE else "weakmodel_images"
        target = folder / part / ("" if side in (REFERENCE, OURS) else side)
        target.mkdir(exist_ok=True)
        for place, picture in enumerate(what.sides[side].pictures):
            path = what.sides[side].folder / picture.image
            write_atomic(target / f"{_stem(what, place)}{path.suffix}", read_any(path))


def _write_pairs(what: Measurement, name: str, folder: Path) -> None:
    """Pairs that the page shows too: side by side, and the difference alone."""
    options: Any = what.metrics[name]
    write_atomic(folder / "visualization" / "difference_scale.png", _png(scale()))
    for place in chosen(len(what.pictures)):
        shown = []
        try:
            for side in sides_of(what):
                image = read_image(what.sides[side].folder / what.sides[side].pictures[place].image)
                shown.append(resized(image, options.size) if options.size is not None else image)
        except (OSError, UnreadableImage):
            continue
        difference = difference_map(shown[1], shown[0])
        shown.append(difference)
        gap = np.full((len(difference), _GAP, 3), 255, dtype=np.uint8)
        row = np.concatenate([part for image in shown for part in (image, gap)][:-1], axis=1)
        write_atomic(folder / "comparison_output" / f"{_stem(what, place)}.png", _png(row))
        write_atomic(folder / "visualization" / f"difference_{_stem(what, place)}.png", _png(difference))


def _write_origin(side: Side, name: str, folder: Path) -> None:
    """What the run of `generate` around a side says of its generator; nothing of images from elsewhere."""
    run = side.folder.parent
    if not (run / "run.json").is_file() or not (run / "config.yaml").is_file():
        return
    config = read_yaml(run / "config.yaml")
    kept = {key: config[key] for key in ("generator", "sampling", "search", "seed") if key in config}
    write_atomic(folder / f"{name}.json", (json.dumps(kept, indent=1) + "\n").encode())
    options = (config.get("generator") or {}).get("options") or {}
    for key in _FILES:
        given = options.get(key)
        for number, text in enumerate(given if isinstance(given, list) else [given] if given else []):
            path = locate(Path(str(text).rpartition(":")[0] or str(text)), run)
            link = folder / f"{name}-{key}{number or ''}{path.suffix}"
            if path.exists() and not link.is_symlink():
                link.symlink_to(path.resolve())


def _stem(what: Measurement, place: int) -> str:
    """PROMPT_NUMBER of a pair; of images without prompts their name."""
    picture = what.pictures[place]
    if picture.prompt is None:
        return Path(picture.image).with_suffix("").as_posix().replace("/", "_")
    return f"{picture.prompt.index:05d}_{picture.number:04d}"


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
