"""The image folder that GenEval reads: IMAGES/00017/metadata.jsonl and IMAGES/00017/samples/0000.png.

Folders and samples are named by digits and walked in the order of their numbers. What GenEval passes over in silence
is refused here: a folder without metadata or samples, the same number twice, samples of another image type.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from genloop.data.prompts import parse_metadata, read_object
from genloop.records import Prompt

_NUMBER = re.compile(r"[0-9]+")
_SAMPLE = re.compile(r"[0-9]+\.png")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a prompt; `prompt.index` is the number of its folder."""

    prompt: Prompt
    number: int
    image: str  # path relative to the image folder, with "/"
    metadata: str  # the JSON object of the folder, as GenEval's rows repeat it


def find_samples(images: Path, *, classes: Collection[str] | None = None, limit: int | None = None) -> list[Sample]:
    """Every sample of the first `limit` prompt folders, by folder and sample number.

    `classes` are the names that metadata may use. Raises FileNotFoundError or ValueError, one line each.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; expected prompt folders such as {images}/00000")
    folders = _numbered(images, (entry.name for entry in images.iterdir() if _NUMBER.fullmatch(entry.name)))
    if not folders:
        raise ValueError(f"{images}: no prompt folders; expected {images}/00000/samples/0000.png and so on")
    chosen = list(folders.items())[:limit]
    return [sample for index, name in chosen for sample in _folder_samples(images, name, index, classes)]


def _folder_samples(images: Path, name: str, index: int, classes: Collection[str] | None) -> Iterator[Sample]:
    folder = images / name
    path = folder / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; every prompt folder needs its line of GenEval metadata")
    row = read_object(path)
    prompt = parse_metadata(row, index, where=f"{path}", classes=classes)
    samples = folder / "samples"
    files = [entry.name for entry in samples.iterdir() if not entry.name.startswith(".")] if samples.is_dir() else []
    for file in files:
        if not _SAMPLE.fullmatch(file) and file.lower().endswith(_IMAGE_SUFFIXES):
            raise ValueError(f"{samples / file}: not a sample that GenEval reads; samples are named 0000.png, 0001.png")
    numbers = _numbered(samples, (file for file in files if _SAMPLE.fullmatch(file)))
    if not numbers:
        raise ValueError(f"{folder}: no samples; expected {samples}/0000.png and so on")
    text = json.dumps(row)
    yield from (Sample(prompt, number, f"{name}/samples/{file}", text) for number, file in numbers.items())


def _numbered(folder: Path, names: Iterator[str]) -> dict[int, str]:
    """{number: name} by number; ValueError when two names are the same number."""
    found: dict[int, str] = {}
    for name in sorted(names):
        number = int(name.partition(".")[0])
        if number in found:
            raise ValueError(f"{folder}: {found[number]} and {name} are the same number; remove one of them")
        found[number] = name
    return dict(sorted(found.items()))
