"""The image folder that GenEval reads: IMAGES/00017/metadata.jsonl and IMAGES/00017/samples/0000.png.

Folders and samples are named by digits, however padded, and walked in the order of their numbers. Images are PNG, JPEG
or WebP. With the layout "final" a prompt has one image, IMAGES/00017/final.png, beside its metadata. What GenEval
passes over in silence is refused here: a folder that is no number or lacks metadata, the same number twice, files of
another image type. A folder of shards that `generate` wrote is read alike.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genloop.data.images import OTHER_SUFFIXES, SUFFIXES
from genloop.data.pictures import by_number, has_shards, image_samples, member_name, stem_number
from genloop.data.prompts import REWRITTEN, parse_metadata
from genloop.reading import parse_json, read_json
from genloop.records import Prompt

Layout = Literal["samples", "final"]
_NUMBER = re.compile(r"[0-9]+")
_SAMPLE = re.compile(r"[0-9]+\.(png|jpg|jpeg|webp)", re.IGNORECASE)
_FINAL = re.compile(r"final\.(png|jpg|jpeg|webp)", re.IGNORECASE)
_NEEDED = ("tag", "include", "prompt")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a prompt; `prompt.index` is the number of its folder."""

    prompt: Prompt
    number: int
    image: str  # path relative to the image folder, with "/"
    metadata: str  # the JSON object of the folder, as GenEval's rows repeat it
    rewritten: str | None = None  # the prompt in other words, where the metadata has it


@dataclass(frozen=True, slots=True)
class PromptFolder:
    """One prompt with the images that there are of it."""

    name: str
    prompt: Prompt
    samples: tuple[Sample, ...]


def find_samples(images: Path, *, limit: int | None = None, layout: Layout = "samples") -> list[Sample]:
    """Every sample of the first `limit` prompt folders, by folder and sample number; ValueError for an empty folder."""
    folders = read_folders(images, limit=limit, layout=layout)
    check_samples(images, folders, layout)
    return [sample for folder in folders for sample in folder.samples]


def read_folders(
    images: Path, *, classes: Collection[str] | None = None, limit: int | None = None, layout: Layout = "samples"
) -> list[PromptFolder]:
    """The first `limit` prompt folders by number, each with the samples it has, which may be none.

    `classes` are the names that metadata may use. Raises FileNotFoundError or ValueError, one line each.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder; expected prompt folders such as {images}/00000")
    if has_shards(images):
        return _from_shards(images, classes)[:limit]
    if (images / "metadata.jsonl").is_file():
        raise ValueError(f"{images}: is the folder of one prompt; give the folder above it, {images.parent}")
    entries = [entry for entry in images.iterdir() if not entry.name.startswith(".")]
    for entry in entries:
        if _NUMBER.fullmatch(entry.name) and not entry.is_dir():
            raise ValueError(
                f"{entry}: is named like a prompt folder and is none (a file, or a broken link); remove it"
            )
    inside = [entry.name for entry in entries if entry.is_dir()]
    folders = by_number(images, (name for name in inside if _NUMBER.fullmatch(name)), int)
    if not folders:
        raise ValueError(f"{images}: no prompt folders; expected {images}/00000/samples/0000.png and so on")
    if strangers := sorted(name for name in inside if not _NUMBER.fullmatch(name)):
        raise ValueError(
            f"{images / strangers[0]}: prompt folders are named by numbers, such as 00017{_more(strangers)}; "
            "rename it, move it elsewhere, or hide it behind a dot"
        )
    return [_read(images, name, index, classes, layout) for index, name in list(folders.items())[:limit]]


def _from_shards(images: Path, classes: Collection[str] | None) -> list[PromptFolder]:
    """The prompts of shards that `generate` wrote, whose json holds `metadata`, by number."""
    found: dict[int, dict[int, Sample]] = {}
    for member, field in image_samples(images, ("json",)):
        where = f"{member.name}: json"
        row = parse_json(member.fields.get("json", b"null"), where)
        index, number = (row.get(key) if isinstance(row, Mapping) else None for key in ("prompt_index", "sample"))
        if not (isinstance(index, int) and isinstance(number, int) and min(index, number) >= 0):
            raise ValueError(f"{where}: needs prompt_index, sample and metadata, as `generate` writes them")
        metadata = row.get("metadata")
        _check_schema(Path(where), metadata)
        prompt = parse_metadata(metadata, index, where=where, classes=classes)
        samples = found.setdefault(index, {})
        if number in samples:
            raise ValueError(f"{where}: a second image of prompt {index}, sample {number}; remove one of them")
        text = json.dumps(metadata)
        samples[number] = Sample(prompt, number, member_name(member, field), text, metadata.get(REWRITTEN))
    return [
        PromptFolder(f"{index:05d}", samples[min(samples)].prompt, tuple(samples[n] for n in sorted(samples)))
        for index, samples in sorted(found.items())
    ]


def check_samples(images: Path, folders: Iterable[PromptFolder], layout: Layout = "samples") -> None:
    """ValueError for the first prompt folder without images."""
    for folder in folders:
        if not folder.samples:
            raise ValueError(_no_samples(images / folder.name, layout))


def _no_samples(folder: Path, layout: Layout) -> str:
    expected = folder / ("final.png" if layout == "final" else "samples/0000.png")
    other = [file for file in _files(folder) if _FINAL.fullmatch(file)] if layout == "samples" else []
    hint = f"; for {folder / other[0]} set layout=final" if other else " and so on" if layout == "samples" else ""
    return f"{folder}: no samples; expected {expected}{hint}"


def _read(images: Path, name: str, index: int, classes: Collection[str] | None, layout: Layout) -> PromptFolder:
    path = images / name / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; every prompt folder needs its line of GenEval metadata")
    row = read_json(path)
    _check_schema(path, row)
    prompt = parse_metadata(row, index, where=f"{path}", classes=classes)
    text, rewritten = json.dumps(row), row.get(REWRITTEN)
    found = _finals(images / name) if layout == "final" else _samples(images / name)
    return PromptFolder(
        name,
        prompt,
        tuple(Sample(prompt, number, f"{name}/{file}", text, rewritten) for number, file in found.items()),
    )


def _check_schema(path: Path, row: Any) -> None:
    """Refuse what was written for something else, and text that no file can hold."""
    if isinstance(row, Mapping):
        if missing := [key for key in _NEEDED if key not in row]:
            found = ", ".join(map(str, list(row)[:6])) or "nothing"
            raise ValueError(
                f"{path}: {missing[0]} is missing: GenEval's metadata has {', '.join(_NEEDED)}, not {found}"
            )
        if not isinstance(row.get(REWRITTEN), str | None):
            raise ValueError(f"{path}: {REWRITTEN} must be a text, found {json.dumps(row[REWRITTEN])[:60]}")
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: holds half of a character (a lone surrogate); write the whole one") from None
    except ValueError as error:  # NaN, 1e999
        raise ValueError(f"{path}: holds what JSON cannot say again: {error}") from None


def _samples(folder: Path) -> dict[int, str]:
    """{number: path below the prompt folder}"""
    place = folder / "samples"
    files = _files(place)
    for file in files:
        looks_like_one = file.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES)) or _NUMBER.fullmatch(file)
        if not _SAMPLE.fullmatch(file) and looks_like_one:
            raise ValueError(
                f"{place / file}: not a sample that is read here; samples are named 0000.png, 0001.png (or .jpg, .webp)"
            )
    found = by_number(place, (file for file in files if _SAMPLE.fullmatch(file)), stem_number)
    _check_files(place, found.values())
    return {number: f"samples/{file}" for number, file in found.items()}


def _finals(folder: Path) -> dict[int, str]:
    """The one image beside the metadata, as sample 0."""
    files = sorted(file for file in _files(folder) if _FINAL.fullmatch(file))
    if len(files) > 1:
        raise ValueError(f"{folder}: {files[0]} and {files[1]} are both the prompt's one image; remove one of them")
    _check_files(folder, files)
    return dict(enumerate(files))


def _check_files(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: is no file (a folder, or a broken link); remove it")


def _files(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []


def _more(names: Collection[str]) -> str:
    return f" ({len(names) - 1} more like it)" if len(names) > 1 else ""
