"""A judge's examples in memory, as arrays: which images, under which sentences, with which labels, grouped to batch.

Small sets are decoded when they are read, and equal images are kept once, so that a model looks once at an image that
several questions are about. Of large ones pixels are read when they are asked for. E = examples, I = images.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.judge.examples import QUESTIONS, UNKNOWN_STEP, JudgeExample, from_sample, read_cells
from genloop.data.shards import Shards

PATHS = ("generate", "conversations")  # sources of images that somebody generated
Path_ = tuple[int, int, int]  # (prompt_index, sample, candidate)
Sentence = tuple[str, bool]  # text; whether these are previews at unknown steps


@dataclass
class ImageStore:
    """Images by number, (H, W, 3) uint8 each: decoded already, or read from their shard when asked for."""

    decoded: list[np.ndarray | None]
    places: list[tuple[Shards, int]]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, image: int) -> np.ndarray:
        kept = self.decoded[image]
        if kept is not None:
            return kept
        shards, row = self.places[image]
        return decode_png(shards[row].fields["png"])


@dataclass
class JudgeSet:
    """One side of the split of one data set. `labels` (E, 3) in the order of QUESTIONS, NaN where not asked."""

    examples: list[JudgeExample]
    labels: np.ndarray
    image_of: np.ndarray  # (E,) number in `images`
    images: ImageStore
    cells: dict[int, np.ndarray]  # image -> (rows, columns, 2) indices into the names + 1, 0 for background
    cell_names: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.examples)

    def by_path(self) -> dict[str, dict[Sentence, dict[Path_, dict[int, int]]]]:
        """Task -> sentence -> path -> {step: example}, of images that are not scenes; a missing task is "".

        An image of a conversation is a path of one step. Previews at unknown steps are apart from others.
        """
        found: dict[str, dict[Sentence, dict[Path_, dict[int, int]]]] = defaultdict(lambda: defaultdict(dict))
        for row, example in enumerate(self.examples):
            if example.source in PATHS:
                path = (example.prompt.index, example.sample, example.candidate)
                sentence = (example.prompt.text, example.step == UNKNOWN_STEP)
                found[example.prompt.tag or ""][sentence].setdefault(path, {})[example.step] = row
        return found

    def contrasts(self) -> list[list[int]]:
        """The examples of each contrast of drawn scenes."""
        found: dict[int, list[int]] = defaultdict(list)
        for row, example in enumerate(self.examples):
            if example.source == "scenes":
                found[example.prompt.index].append(row)
        return list(found.values())


def read_judge_set(folder: Path, *, cache_bytes: int = 1 << 28) -> JudgeSet:
    """All examples of a folder of shards; decoded at once when the PNGs have no more than `cache_bytes`."""
    shards = Shards(folder)
    size = int(shards.column("png")["size"].clip(min=0).sum())
    examples, image_of, cells = [], [], {}
    labels = np.full((len(shards), len(QUESTIONS)), np.nan)
    names: dict[str, list[str]] = {}
    store = ImageStore([], [])
    known: dict[bytes, int] = {}
    shared: dict[str, Any] = {}
    for row, sample in enumerate(shards):
        example = from_sample(sample, shared)
        examples.append(example)
        for number, question in enumerate(QUESTIONS):
            labels[row, number] = example.questions.get(question, np.nan)
        digest = hashlib.blake2b(sample.fields["png"], digest_size=16).digest() if size <= cache_bytes else None
        image = known.get(digest, len(store)) if digest else len(store)
        if image == len(store):
            store.places.append((shards, row))
            store.decoded.append(decode_png(sample.fields["png"]) if digest else None)
            if digest:
                known[digest] = image
        image_of.append(image)
        if image not in cells and example.cells is not None and (drawn := read_cells(sample)) is not None:
            cells[image] = drawn
        if example.cells is not None:
            names = _same_names(names, example)
    return JudgeSet(examples, labels, np.array(image_of), store, cells, names)


def holds(folder: Path, sources: Collection[str]) -> bool:
    """Whether any example of a folder of shards is of these sources; reads no further than the first."""
    return any(from_sample(sample).source in sources for sample in Shards(folder))


def decode_png(data: bytes) -> np.ndarray:
    """PNG (or any file that Pillow reads) -> (H, W, 3) uint8."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def chunks(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """`rows` in pieces of at most `size`."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _same_names(names: dict[str, list[str]], example: JudgeExample) -> dict[str, list[str]]:
    assert example.cells is not None
    if names and names != example.cells:
        raise ValueError(f"sample {example.key}: other names of cells than the samples before it; train on one world")
    return names or {name: list(values) for name, values in example.cells.items()}
