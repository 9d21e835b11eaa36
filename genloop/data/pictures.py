"""Folders of images and the prompts that they were made from, in whatever layout: GenEval's, or all in one folder.

IMAGES/00017/samples/0000.png   prompt 17; its text is in metadata.jsonl beside `samples`, or on line 17 of `prompts`
IMAGES/00017_2.png              prompt 17, its image 2: lines of `prompts` count from 0
IMAGES/00002.tar                a shard of WebDataset: png, jpg, jpeg or webp; its text is `prompt` of json, or txt
IMAGES/dog.png                  named by a row {"image": "dog.png", "prompt": ...} of `prompts`
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from genloop.data.images import OTHER_SUFFIXES, SUFFIXES
from genloop.data.prompts import parse_metadata, read_texts
from genloop.data.shards import Sample, Shards
from genloop.hashing import files_below
from genloop.reading import parse_json, read_json, read_utf8
from genloop.records import Prompt

_NUMBERED = re.compile(r"(\d+)(?:\D+(\d+))?\D*")
_NAME_KEYS = ("image", "file_name")
_TEXT_KEYS = ("prompt", "text")
N = TypeVar("N", int, tuple[int, int])  # a number of a name: of its prompt, of its image, or both


@dataclass(frozen=True, slots=True)
class Picture:
    """One image: path relative to its folder, with "/"; whose it is, and which of several."""

    image: str
    prompt: Prompt | None = None
    number: int = 0


def find_pictures(folder: Path, prompts: Path | None = None, *, limit: int | None = None) -> list[Picture]:
    """The first `limit` images of a folder, by prompt and number; those of one folder may all lack prompts.

    Raises FileNotFoundError or ValueError, one line each.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    known = _Prompts(prompts) if prompts is not None else None
    if has_shards(folder):
        return list(islice(_in_shards(folder, known), limit))
    places = by_number(folder, (p.name for p in folder.iterdir() if p.is_dir() and p.name.isdecimal()), int)
    if places:
        found = [picture for index, name in places.items() for picture in _of_prompt(folder, name, index, known)]
    else:
        found = _in_one_folder(folder, known)
    if not found:
        raise ValueError(f"{folder}: no images; expected files ending in {', '.join(SUFFIXES)}")
    return found[:limit]


def find_images(folder: Path, *, limit: int | None = None) -> list[Picture]:
    """The first `limit` images below a folder, at any depth, by path."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if has_shards(folder):
        return [Picture(member_name(sample, field)) for sample, field in islice(image_samples(folder), limit)]
    names = sorted((p.relative_to(folder).as_posix() for p in _images(files_below(folder))), key=_order)
    if not names:
        raise ValueError(f"{folder}: no images; expected files ending in {', '.join(SUFFIXES)}")
    return [Picture(name) for name in names[:limit]]


def stem_number(name: str) -> int:
    """Of a file or folder that is named by digits."""
    return int(Path(name).stem)


def by_number(folder: Path, names: Iterable[str], number_of: Callable[[str], N]) -> dict[N, str]:
    """{number: name} in order of numbers, for names of entries of a folder; ValueError when two are the same number."""
    found: dict[N, str] = {}
    for name in sorted(names):
        number = number_of(name)
        if number in found:
            raise ValueError(f"{folder}: {found[number]} and {name} are the same number; remove one of them")
        found[number] = name
    return dict(sorted(found.items()))


def has_shards(folder: Path) -> bool:
    """Whether images lie in shards."""
    return any(folder.glob("*.tar"))


def image_samples(folder: Path, fields: Collection[str] = ()) -> Iterator[tuple[Sample, str]]:
    """The samples of a folder of shards, with some of their fields, and which field is the image.

    ValueError when one has no png, jpg, jpeg or webp.
    """
    shards = Shards(folder)
    known = [suffix.removeprefix(".") for suffix in SUFFIXES]
    is_there = np.stack([shards.column(field)["size"] >= 0 for field in known])  # (fields, samples)
    for place in np.flatnonzero(~is_there.any(axis=0))[:1].tolist():
        name = shards.read(place, ()).name
        raise ValueError(f"{name}: has no {' or '.join(known)}; a sample needs one to be an image")
    chosen = is_there.argmax(axis=0).tolist()
    return ((shards.read(place, fields), known[number]) for place, number in enumerate(chosen))


def member_name(sample: Sample, field: str) -> str:
    """What a field of a sample is called below the folder of its shard."""
    return f"{sample.shard.name if sample.shard else ''}/{sample.key}.{field}"


def _in_shards(folder: Path, known: "_Prompts | None") -> Iterator[Picture]:
    """Their own numbers where json has them, as that of `generate` does."""
    for place, (sample, field) in enumerate(image_samples(folder, ("json", "txt"))):
        row = parse_json(sample.fields.get("json", b"{}"), f"{sample.name}: json")
        row = row if isinstance(row, Mapping) else {}
        defaults = {"prompt_index": place, "sample": 0}
        index, number = (value if type(value := row.get(key)) is int else other for key, other in defaults.items())
        name, prompt = member_name(sample, field), None
        if known is not None:
            prompt = known.by_name.get(name) or known.of_number(index, sample.name)
        elif isinstance(row.get("prompt"), str):
            prompt = _prompt(row.get("metadata") or row, index, sample.name)
        elif "txt" in sample.fields:
            prompt = _prompt({"text": sample.fields["txt"].decode("utf-8", "replace")}, index, sample.name)
        yield Picture(name, prompt, number)


class _Prompts:
    """A file of prompts: by line number, or by the names of images that its rows give."""

    def __init__(self, path: Path) -> None:
        self.path, self.by_name, self.by_number = path, {}, []
        if path.suffix not in (".jsonl", ".json"):
            self.by_number = [Prompt(index, text) for index, text in enumerate(read_texts(path))]
            return
        for number, line in enumerate(read_utf8(path).rstrip().split("\n")):
            where = f"{path}:{number + 1}"
            row = parse_json(line, where, once=True)
            prompt = _prompt(row, number, where)
            name = next((row[key] for key in _NAME_KEYS if key in row), None)
            if name is None:
                self.by_number.append(prompt)
            elif self.by_name.setdefault(str(name), prompt) is not prompt:
                raise ValueError(f"{where}: a second row about {name!r}")
        if self.by_name and self.by_number:
            raise ValueError(f"{path}: some rows name their image and some do not; name all or none")

    by_name: dict[str, Prompt]
    by_number: list[Prompt]

    def of_number(self, index: int, where: str) -> Prompt:
        if not 0 <= index < len(self.by_number):
            raise ValueError(
                f"{where}: there is no line {index} in {self.path}, which has {len(self.by_number)} prompts"
            )
        return self.by_number[index]


def _of_prompt(folder: Path, name: str, index: int, known: _Prompts | None) -> Iterator[Picture]:
    """The images of the prompt folder `name`, numbered by their names; by their order when some are no numbers."""
    place = folder / name
    inner = place / "samples" if (place / "samples").is_dir() else place
    names = sorted((p.name for p in _images(inner.iterdir())), key=_order)
    metadata = place / "metadata.jsonl"
    prompt = None
    if known is not None:
        prompt = known.of_number(index, f"{place}")
    elif metadata.is_file():
        prompt = _prompt(read_json(metadata), index, f"{metadata}")
    numbered = by_number(inner, (name for name in names if Path(name).stem.isdecimal()), stem_number)
    for number, name in numbered.items() if len(numbered) == len(names) else enumerate(names):
        yield Picture((inner / name).relative_to(folder).as_posix(), prompt, number)


def _in_one_folder(folder: Path, known: _Prompts | None) -> list[Picture]:
    names = sorted((p.name for p in _images(folder.iterdir())), key=_order)
    if known is None:
        return [Picture(name) for name in names]
    if known.by_name:
        if missing := [name for name in names if name not in known.by_name]:
            raise ValueError(f"{folder / missing[0]}: {known.path} has no row about it ({len(missing)} such images)")
        return [Picture(name, known.by_name[name]) for name in names]

    def numbers(name: str) -> tuple[int, int]:
        match = _NUMBERED.fullmatch(Path(name).stem)
        if match is None:
            raise ValueError(
                f"{folder / name}: does not begin with the number of its prompt, as 00017_2.png does; "
                f'rename it, or give `prompts` with rows {{"image": "{name}", "prompt": ...}}'
            )
        return int(match[1]), int(match[2] or 0)

    found = by_number(folder, names, numbers)
    return [Picture(name, known.of_number(index, f"{folder / name}"), n) for (index, n), name in found.items()]


def _prompt(row: Any, index: int, where: str) -> Prompt:
    """With GenEval's metadata where a row has them, else the text alone."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected a JSON object")
    if "tag" in row and "include" in row:
        return parse_metadata(row, index, where=where)
    text = next((row[key] for key in _TEXT_KEYS if key in row), None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where}: no text under {' or '.join(_TEXT_KEYS)}")
    return Prompt(index, text.strip())


def _images(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of image files; ValueError for an image of a format that is not read."""
    for path in paths:
        suffix = path.suffix.lower()
        if path.name.startswith(".") or suffix not in (*SUFFIXES, *OTHER_SUFFIXES) or not path.is_file():
            continue
        if suffix in OTHER_SUFFIXES:
            raise ValueError(f"{path}: images are read as {', '.join(SUFFIXES)}; convert it or move it elsewhere")
        yield path


def _order(name: str) -> tuple[list[tuple[int, str]], str]:
    """By the numbers in a name, as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name
