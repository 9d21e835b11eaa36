"""The page of a run of `metrics` without pairs: images with the highest and lowest scores, then every number."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.reading import read_object_or_empty, read_utf8
from genloop.report.cards import PictureCard, Shot
from genloop.report.files import write_files
from genloop.report.general.write import content_of
from genloop.report.markup import markup_of
from genloop.report.page.pictures import embed
from genloop.report.page.selection import best_and_worst

EXTREMES = 4
READING = (
    "Intervals hold the true value in 95 % of cases. The sample are prompts, because images of one prompt are alike; n "
    "counts images. Scores of single images are compared within one metric only: their scales differ."
)


def write_scores(run: Path, images: Path, metrics: Sequence[str], rows: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page. `images` is the folder that rows speak of."""
    text = read_utf8(run / "table.md") if (run / "table.md").is_file() else "Not all units are done.\n"
    extremes = [
        (f"{name}: {metric.replace('_', ' ')}", cards)
        for metric in metrics
        for name, cards in _extremes(images, metric, rows)
    ]
    content = content_of(run) | {
        "title": f"Measured images: {run.resolve().name}",
        "extremes": extremes,
        "pictures_lead": "The images with the highest and the lowest score of each metric, one a prompt.",
        "texts": [markup_of(text)],
        "tables": [],
        "reading": [READING],
    }
    return write_files(out, "general.html.j2", content, table=text, numbers=read_object_or_empty(run / "summary.json"))


def _extremes(images: Path, metric: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[PictureCard]]]:
    known = [(_value(row["scores"].get(metric)), row) for row in rows if "reference" not in row and not row["problem"]]
    scored = [(value, row["prompt"] or row["image"], row) for value, row in known if value is not None]
    return [(name, [_card(images, metric, row) for row in found]) for name, found in best_and_worst(scored, EXTREMES)]


def _card(images: Path, metric: str, row: Mapping[str, Any]) -> PictureCard:
    text = row["prompt"] or row["image"]
    return PictureCard(text, (Shot(embed(images / row["image"]), text, f"{_value(row['scores'][metric]):.3g}"),))


def _value(score: Any) -> float | None:
    """A score as a number: of several answers their mean, None where there is none."""
    values = [one for one in (score if isinstance(score, list) else [score]) if isinstance(one, int | float)]
    return sum(values) / len(values) if values else None
