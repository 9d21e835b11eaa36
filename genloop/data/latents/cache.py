"""Latents and text embeddings as shards, each entry under a key of all that it was computed from.

A latent's key is a sha256 over the sample's key, its image file, the crop, the VAE and what is kept of its answer; a
text's is one over the caption and the text encoders. A lookup is by that key, never by a step or a place, so an entry
of another caption, crop or encoder cannot be taken for it. A shard holds up to CHUNK entries and is named after their
keys: what is there is whole and right, what is missing is computed, by whichever rank.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from genloop.data.arrays import read_array
from genloop.data.latents.examples import Example
from genloop.data.shards import Sample, Shards, index_path, npy_bytes, write_shard
from genloop.distributed import World

log = logging.getLogger(__name__)
CHUNK = 256  # entries of a shard
_VERSION = 1  # of what is computed from the same input
_SUFFIX = ".npy"
Arrays = dict[str, np.ndarray]


def latent_key(example: Example, vae: str, kept: str) -> str:
    """The key of an example's latent; `vae`: the sha256 of its weights and configuration."""
    crop = [*example.crop.scaled, example.crop.left, example.crop.top, *example.crop.size]
    mirrored = ["mirrored"] if example.is_mirrored else []
    return _digest("latent", example.key, example.image, crop, vae, kept, *mirrored)


def text_key(caption: str | None, encoders: str) -> str:
    """The key of a caption's embeddings, by its sha256 (None: of no caption); `encoders`: the sha256 of all of them."""
    return _digest("text", caption, encoders)


class EncodedCache:
    """Entries of one kind in a folder: `fill` computes those that are missing, `read` looks one up."""

    def __init__(self, folder: Path, kind: str, keys: Sequence[str]) -> None:
        unique = list(dict.fromkeys(keys))
        self.chunks = [unique[start : start + CHUNK] for start in range(0, len(unique), CHUNK)]
        self.files = [folder / f"{kind}-{_digest(*chunk)[:24]}.tar" for chunk in self.chunks]
        self._place = {key: place for place, key in enumerate(unique)}
        self._kind = kind
        self._shards: Shards | None = None

    def fill(self, make: Callable[[str], Arrays], world: World) -> None:
        """Compute what is missing of this rank's chunks; the same chunk computed twice is the same file."""
        for number in range(len(self.chunks))[world.rank :: world.world_size]:
            if not index_path(self.files[number]).is_file():
                write_shard(self.files[number], self._made(self.chunks[number], make, world))
                log.info("%s: shard %d of %d is there", self._kind, number + 1, len(self.files))

    def open(self) -> None:
        """Every chunk is there: entries may be read. ValueError or FileNotFoundError for a damaged shard."""
        self._shards = Shards(self.files)

    def read(self, key: str) -> Arrays:
        """The arrays of an entry, float32; ValueError where a shard does not hold what it is named after."""
        assert self._shards is not None, "opened before"
        sample = self._shards.read(self._place[key])
        if sample.key != key:
            raise ValueError(f"{sample.name}: expected {key}; delete this shard, it is computed again")
        return {field.removesuffix(_SUFFIX): read_array(sample, field) for field in sample.fields}

    @staticmethod
    def _made(keys: Sequence[str], make: Callable[[str], Arrays], world: World) -> Iterator[Sample]:
        for key in keys:
            world.check_stop()
            yield _sample(key, make(key))


def _sample(key: str, arrays: Arrays) -> Sample:
    fields = {name + _SUFFIX: npy_bytes(np.ascontiguousarray(array, dtype="<f4")) for name, array in arrays.items()}
    return Sample(key, fields)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([_VERSION, *parts]).encode()).hexdigest()
