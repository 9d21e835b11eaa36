"""Published preference pairs: JSON lines {"prompt", "chosen": path, "rejected": path} beside a folder of images."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genloop.data.image_reader import image_size, read_image
from genloop.data.pairs.per_prompt import PromptPairs
from genloop.data.pairs.rules import Scored, make_pair
from genloop.job import note
from genloop.reading import parse_json, read_utf8
from genloop.records import Prompt

_KEYS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True)
class PublishedPair:
    """One line of the file."""

    prompt: str
    chosen: Path
    rejected: Path


@dataclass(frozen=True, slots=True)
class PublishedPairing:
    """Encodes the pairs of a file, one at a time, so that no batch changes a code."""

    pairs: Sequence[PublishedPair]
    encode: Callable[[Sequence[np.ndarray]], np.ndarray]  # images (H, W, 3) uint8 -> codes (B, n)

    def pair_up(self, prompts: Sequence[Prompt]) -> list[PromptPairs]:
        """The pair of each line; none where both images have the same codes."""
        return [self._of_line(prompt, self.pairs[prompt.index]) for prompt in prompts]

    def _of_line(self, prompt: Prompt, published: PublishedPair) -> PromptPairs:
        with note(f"{published.chosen} and {published.rejected}"):
            chosen, rejected = self.encode([read_image(path) for path in (published.chosen, published.rejected)])
        if (chosen == rejected).all():
            return PromptPairs(prompt, left_out=2)
        pair = make_pair(prompt, Scored("chosen", chosen, 1.0), Scored("rejected", rejected, 0.0), "given")
        return PromptPairs(prompt, images=2, pairs=[pair])


def read_published(path: Path, images: Path, *, limit: int | None = None) -> list[PublishedPair]:
    """The first `limit` lines; paths are below `images`. FileNotFoundError or ValueError names file and line."""
    found = []
    for number, line in enumerate(read_utf8(path).rstrip().split("\n")[:limit], 1):
        where = f"{path}:{number}"
        row = parse_json(line, where, once=True)
        if not isinstance(row, dict) or (bad := [key for key in _KEYS if not _is_text(row.get(key))]):
            named = f"; {bad[0]} is none" if isinstance(row, dict) else ""
            raise ValueError(f"{where}: needs an object of the texts prompt, chosen and rejected{named}")
        sides = [images / row[key] for key in _KEYS[1:]]
        for side, key in zip(sides, _KEYS[1:]):
            if not side.is_file():
                raise FileNotFoundError(f"{where}: {key}: no such image: {side}")
            if image_size(side) is None:
                raise ValueError(f"{where}: {key}: {side} is not a PNG, JPEG or WebP image")
        found.append(PublishedPair(row["prompt"].strip(), *sides))
    return found


def sizes_of(pairs: Sequence[PublishedPair]) -> str:
    """A sha256 of the sizes of all images in order, cheap where there are many."""
    sizes = [side.stat().st_size for pair in pairs for side in (pair.chosen, pair.rejected)]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
