"""WebDataset shards: tar files whose members KEY.FIELD with one KEY make a sample; byte-reproducible, random access.

A shard is written under a temporary name and renamed when complete; its index sidecar appears last and says where every
field lies, so that any sample can be read at once, in any order, by any rank:

    00003.tar           000000012.codes.npy, 000000012.json, 000000012.txt, 000000013.codes.npy, ...
    00003.index.json    {"schema", "bytes", "sha256", "samples": [[key, {field: [offset, size]}], ...]}

Shards from elsewhere, which have no sidecar, are scanned once when they are opened.
"""

import bisect
import functools
import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.rundir import sha256_file, sync_folder, write_atomic

SCHEMA = 1
Fields = Mapping[str, bytes]
Places = dict[str, tuple[int, int]]  # field -> (offset, size) of its bytes in the tar


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its key and the bytes of its fields ("txt", "json", "codes.npy", ...)."""

    key: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What is in one shard and where. `sha256` is None for a shard without a sidecar."""

    path: Path
    num_bytes: int
    sha256: str | None
    keys: tuple[str, ...]
    places: tuple[Places, ...]


def index_path(shard: Path) -> Path:
    """00003.tar -> 00003.index.json"""
    return shard.with_suffix(".index.json")


# --- writing ---------------------------------------------------------------------------------------------------------


def write_shard(path: Path, samples: Iterable[Sample]) -> ShardIndex:
    """Write one shard and its sidecar; the same samples give the same bytes. ValueError for a bad or repeated key."""
    if path.suffix != ".tar":
        raise ValueError(f"a shard's name ends in .tar, found {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            keys, places = _write_members(file, samples)
            file.flush()
            os.fsync(file.fileno())
        index = ShardIndex(path, temporary.stat().st_size, sha256_file(temporary), tuple(keys), tuple(places))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    write_atomic(index_path(path), _index_json(index))
    return index


def _write_members(file: Any, samples: Iterable[Sample]) -> tuple[list[str], list[Places]]:
    keys, places, seen = [], [], set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            if not sample.key or "." in sample.key or "/" in sample.key or sample.key in seen:
                raise ValueError(f"key {sample.key!r} is empty, repeated or holds a dot or a slash")
            seen.add(sample.key)
            here: Places = {}
            for field in sorted(sample.fields):
                data = sample.fields[field]
                member = tarfile.TarInfo(f"{sample.key}.{field}")  # mtime 0, no owner: nothing of this machine
                member.size = len(data)
                here[field] = (file.tell() + tarfile.BLOCKSIZE, len(data))
                tar.addfile(member, io.BytesIO(data))
            keys.append(sample.key)
            places.append(here)
    return keys, places


def _index_json(index: ShardIndex) -> bytes:
    samples = [[key, places] for key, places in zip(index.keys, index.places, strict=True)]
    head = {"schema": SCHEMA, "bytes": index.num_bytes, "sha256": index.sha256, "samples": samples}
    return (json.dumps(head, separators=(",", ":")) + "\n").encode()


# --- reading ---------------------------------------------------------------------------------------------------------


class Shards:
    """All samples of a folder of shards (or of one shard), in the order of shard names; `shards[i]` reads one."""

    def __init__(self, source: Path) -> None:
        self.indices = read_indices(source)
        self._starts = [0]
        for index in self.indices:
            self._starts.append(self._starts[-1] + len(index.keys))
        self._open = functools.lru_cache(maxsize=64)(lambda path: open(path, "rb"))  # noqa: SIM115 - kept open

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def sizes(self) -> list[int]:
        """How many samples each shard has."""
        return [len(index.keys) for index in self.indices]

    def __getitem__(self, position: int) -> Sample:
        if not 0 <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        shard = bisect.bisect_right(self._starts, position) - 1
        index, row = self.indices[shard], position - self._starts[shard]
        number = self._open(index.path).fileno()
        fields = {field: os.pread(number, size, offset) for field, (offset, size) in index.places[row].items()}
        return Sample(index.keys[row], fields)

    def __iter__(self) -> Iterator[Sample]:
        return (self[position] for position in range(len(self)))


def read_indices(source: Path) -> list[ShardIndex]:
    """The indices of a shard or of all shards of a folder, by name; sizes are checked, contents are not.

    Raises FileNotFoundError or ValueError (no shards, a torn shard, another schema), one line each.
    """
    shards = [source] if source.is_file() else sorted(source.glob("*.tar"))
    if not shards:
        raise FileNotFoundError(f"no shards (*.tar) in {source}; name a folder that holds some")
    return [_read_index(shard) if index_path(shard).is_file() else _scan(shard) for shard in shards]


def content_digest(source: Path) -> str:
    """One sha256 over the names and contents of all shards, from their sidecars where they have one."""
    digest = hashlib.sha256()
    for index in read_indices(source):
        digest.update(f"{index.path.name}\0{index.sha256 or sha256_file(index.path)}\n".encode())
    return digest.hexdigest()


def verify_shards(source: Path) -> None:
    """Hash every shard; ValueError names those whose content is not what their sidecar says."""
    changed = [i.path.name for i in read_indices(source) if i.sha256 and sha256_file(i.path) != i.sha256]
    if changed:
        raise ValueError(f"{source}: changed since they were written: {', '.join(changed[:10])}; write them again")


def _read_index(shard: Path) -> ShardIndex:
    path = index_path(shard)
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        schema = head["schema"]
        samples = [(key, {f: (place[0], place[1]) for f, place in places.items()}) for key, places in head["samples"]]
        index = ShardIndex(shard, head["bytes"], head["sha256"], *(tuple(column) for column in zip(*samples)))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: not an index of a shard ({error}); delete it to scan the shard instead") from None
    if schema != SCHEMA:
        raise ValueError(f"{path}: schema {schema}, this version reads {SCHEMA}; write the shards again")
    if shard.stat().st_size != index.num_bytes:
        raise ValueError(
            f"{shard}: {shard.stat().st_size} bytes, its index says {index.num_bytes}; copy or write it again"
        )
    return index


def _scan(shard: Path) -> ShardIndex:
    """Index a shard from its own headers: a key is the name up to the first dot of its last part, as in WebDataset."""
    samples: dict[str, Places] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, field = name.partition(".")
                samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[field] = (
                    member.offset_data,
                    member.size,
                )
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not a whole tar file ({error}); copy or write it again") from None
    if not samples:
        raise ValueError(f"{shard}: holds no samples")
    return ShardIndex(shard, shard.stat().st_size, None, tuple(samples), tuple(samples.values()))
