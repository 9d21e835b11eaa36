"""The page of a run of `compare`: the images whose verdict differs side by side, then the figure and the tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genloop.config import read_yaml
from genloop.reading import read_json_object, read_utf8
from genloop.report.cards import PictureCard, Shot
from genloop.report.files import write_files
from genloop.report.general.write import content_of
from genloop.report.markup import markup_of
from genloop.report.page.pictures import embed
from genloop.rundir import read_run
from genloop.runs.evaluations import read_evaluated
from genloop.runs.lineage import locate

SHOWN = 6  # images of each kind
READING = (
    "Differences are b minus a over the same images. Intervals hold the true difference in 95 % of cases: a paired "
    "bootstrap over prompts. p is that of a test that turns whole prompts around, Holm-corrected for the number of "
    "tasks. An interval that lies beyond 0 can belong to a difference that is not significant: it takes one task "
    "alone, while p answers for the number of tasks that were looked at."
)


def write_flips(run: Path, out: Path) -> Path:
    """Write index.html, table.md and table.json -> the path of the page; ValueError while the run is not finished."""
    if not (run / "comparison.json").is_file():
        raise ValueError(f"{run} is not finished, there is nothing to report; run the same command again")
    found, text = read_json_object(run / "comparison.json"), read_utf8(run / "comparison.md")
    content = content_of(run) | {
        "title": f"{found['b']} compared with {found['a']}",
        "lead": next(line for line in text.splitlines() if line and not line.startswith(("#", "|"))),  # the finding
        "extremes": list(_turned(run, found)),
        "pictures_lead": f"Images whose verdict differs: {found['a']} at the left, {found['b']} at the right.",
        "texts": [markup_of(text)],
        "tables": [],
        "reading": [READING],
    }
    return write_files(out, "general.html.j2", content, table=text, numbers=found)


def _turned(run: Path, found: Mapping[str, Any]) -> Iterator[tuple[str, list[PictureCard]]]:
    """Images that became right and that became wrong, one a prompt; nothing where a side is no run folder."""
    config = read_yaml(run / "config.yaml")
    sides = [_images(locate(Path(str(config[key])), run)) for key in "ab"]
    if not all(sides):
        return
    for title, is_right in (("Became right", True), ("Became wrong", False)):
        cards = []
        for flip in found["flips"]:
            turned = [one for one in flip["turned"] if one["b"] == is_right][:1]
            cards += [_card(flip["prompt"], one, sides) for one in turned]
        if cards:
            yield title, cards[:SHOWN]


def _card(prompt: str, one: Mapping[str, Any], sides: list[dict[tuple[str, int], Path]]) -> PictureCard:
    shots = []
    for key, images in zip("ab", sides, strict=True):
        path = images.get((prompt, one["sample"]))
        note = "right" if one[key] else f"wrong: {one[f'reason_{key}']}"
        shots.append(Shot(embed(path) if path else None, f"{prompt}, {key}", note))
    return PictureCard(prompt, tuple(shots))


def _images(folder: Path) -> dict[tuple[str, int], Path]:
    """{(prompt, sample): file} of a run of evaluate; {} for other result files."""
    found = read_run(folder) if folder.is_dir() else None
    if found is None or found["job"] != "evaluate":
        return {}
    images = locate(Path(str(read_yaml(folder / "config.yaml")["images"])), folder)
    return {(row.prompt, row.sample): images / row.image for row in read_evaluated(folder)}
