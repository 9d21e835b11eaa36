"""The human-audit sheet: images of a run, drawn evenly from its tasks, with a question each and without the verdicts.

audit.csv is to be filled by hand; audit.html shows the same images and writes the filled file itself. Either goes back
into the job `agreement`. Which images are drawn depends on the seed and the rows alone, never on a verdict.
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.members import is_there
from genloop.data.prompts import NUMBERS, plural
from genloop.reading import parse_json
from genloop.report.page.pictures import EmbeddedImage, embed
from genloop.report.page.selection import deal
from genloop.report.rendering import render
from genloop.report.runs import ReportedImage, ReportedRun, read_runs
from genloop.rundir import write_atomic
from genloop.stats.agreement.votes import SHEET_COLUMNS, sheet_cell

SIDE = 640  # px of an embedded image
_ORDER = 1 << 20  # stream of the order in which images are shown


@dataclass(frozen=True, slots=True)
class AuditItem:
    """One image to judge: its cells of the CSV, and what to look for."""

    number: int
    image: ReportedImage
    picture: EmbeddedImage
    question: str
    demands: tuple[str, ...]


def write_sheet(folder: Path, out: Path, num_images: int, seed: int) -> Path:
    """Write audit.html and audit.csv for an evaluate run into `out` -> the path of the page."""
    run, images = draw(folder, num_images, seed)
    items = _items(images)
    lines = [_cells(item) for item in items]
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "audit.csv", to_csv([SHEET_COLUMNS, *lines]).encode())
    content = {"run": run, "items": items, "columns": SHEET_COLUMNS, "cells": lines, "digest": _digest(items)}
    write_atomic(out / "audit.html", render("audit.html.j2", content).encode())
    return out / "audit.html"


def draw(folder: Path, num_images: int, seed: int) -> tuple[ReportedRun, list[ReportedImage]]:
    """The run and the images to be shown; ValueError when none of them is there."""
    (run,) = read_runs([folder])
    images = sample(run, num_images, seed)
    if not images:
        raise ValueError(f"{folder}: none of its images is where it was; an audit needs them")
    return run, images


def sample(run: ReportedRun, num_images: int, seed: int) -> list[ReportedImage]:
    """So many images whose files are there, equally many of each task as far as there are, in a random order."""
    groups = [[i for i in run.images if i.tag == tag and is_there(i.path)] for tag in run.tags]
    chosen = []
    for number, (group, count) in enumerate(zip(groups, deal([len(group) for group in groups], num_images))):
        rng = np.random.default_rng([seed, number])
        chosen += [group[place] for place in sorted(rng.choice(len(group), size=count, replace=False))]
    order = np.random.default_rng([seed, _ORDER]).permutation(len(chosen))
    return [chosen[place] for place in order]


def demands(metadata: Mapping[str, Any]) -> list[str]:
    """What the prompt asks for, clause by clause, as GenEval counts it: more objects are fine, but when counting."""
    include = metadata.get("include") or ()
    words = []
    for clause in include:
        name, count, color = clause["class"], clause["count"], clause.get("color")
        named = f"{color} {name}" if color else name
        exact = any(one["class"] == name for one in metadata.get("exclude") or ())
        number = NUMBERS[count] if count < len(NUMBERS) else str(count)
        words.append(f"{'exactly' if exact else 'at least'} {number} {named if count == 1 else plural(named)}")
        if clause.get("position"):
            relation, target = clause["position"]
            side = f"to the {relation}" if relation.endswith(" of") else relation
            words.append(f"the {name} is {side} the {include[target]['class']}")
    return words


def to_csv(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV text."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _items(images: Sequence[ReportedImage]) -> list[AuditItem]:
    found: list[AuditItem] = []
    for image in images:
        picture = embed(image.path, SIDE)
        if picture is not None:
            question = f"Does the image show {image.prompt.removeprefix('a photo of ')}?"
            asked = tuple(demands(parse_json(image.metadata)))
            found.append(AuditItem(len(found) + 1, image, picture, question, asked))
    return found


def _digest(items: Sequence[AuditItem]) -> str:
    """Of what is shown: a browser keeps the answers to one sheet apart from those to all others."""
    shown = json.dumps([[*_cells(item), item.picture.uri] for item in items])
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _cells(item: AuditItem) -> list[object]:
    """A line of the CSV without its answer; says nothing of the verdict."""
    image = item.image
    place = image.row.image or image.path.name
    texts = [sheet_cell(text) for text in (place, image.tag, image.prompt, item.question)]
    return [texts[0], image.prompt_index, image.sample, *texts[1:], ""]
