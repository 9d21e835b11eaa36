"""WebDataset shards: tar files whose members KEY.FIELD with one KEY make a sample; byte-reproducible, random access.

A shard is written under a temporary name and renamed when complete; its index appears after it, so that any sample
can be read at once, in any order, by any process:

    00003.tar           000000012.codes.npy, 000000012.json, 000000012.txt, 000000013.codes.npy, ...
    00003.index.npy     the table of genloop/data/tar_index.py, memory-mapped by readers
    00003.index.json    {"schema", "bytes", "sha256", "samples": how many, "fields": their names}; written last

Shards without an index (from elsewhere) are scanned once when they are opened. `Shards.digest` compares the sha256 of
every tar with its index, through the cache of genloop/hashing.py; a sample that is read is compared with its digest.
"""

import bisect
import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import stat
import tokenize
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from genloop.data.tar_index import KEY, PLACE, Members, check_places, digest_of, scan
from genloop.hashing import sha256_files
from genloop.reading import read_json, regular_file
from genloop.registry import require
from genloop.rundir import sha256_file, sync_folder, write_atomic

SCHEMA = 2
_CHANGED = "changed since its index was written; write the shard again, or to use it as it is delete"
_OPEN = 64  # shards whose file and table are kept open
_PACKED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
MALFORMED = (  # what json and numpy raise for files that are not what they should be
    *(ValueError, LookupError, TypeError, AttributeError, OverflowError, EOFError, SyntaxError, MemoryError),
    *(RecursionError, tokenize.TokenError),
)
Fields = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its key, the bytes of its fields ("txt", "json", "codes.npy", ...), and the shard it comes from."""

    key: str
    fields: Fields
    shard: Path | None = dataclasses.field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What messages call it: shard and key."""
        return f"sample {self.key}" if self.shard is None else f"{self.shard}: sample {self.key}"


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """What is in one shard. `sha256` is None and `table` in memory for a shard without an index of this schema."""

    path: Path
    num_bytes: int
    sha256: str | None
    num_samples: int
    fields: tuple[str, ...]
    table: np.ndarray | None = None

    def load(self) -> np.ndarray:
        """The table of the samples, memory-mapped where it lies in a file."""
        if self.table is not None:
            return self.table
        return np.lib.format.open_memmap(regular_file(table_path(self.path)), mode="r", max_header_size=1 << 16)


def index_path(shard: Path) -> Path:
    """00003.tar -> 00003.index.json"""
    return shard.with_suffix(".index.json")


def table_path(shard: Path) -> Path:
    """00003.tar -> 00003.index.npy"""
    return shard.with_suffix(".index.npy")


# --- writing ---------------------------------------------------------------------------------------------------------


def write_shard(
    path: Path, samples: Iterable[Sample], *, staging: Path | None = None, ready: Callable[[], None] | None = None
) -> ShardIndex:
    """Write one shard and its index; the same samples give the same bytes. ValueError for a bad or repeated key.

    `staging` is a folder on the same file system for temporary files; by default they lie beside the shard. `ready` is
    called when the shard is complete, before it appears: what it raises prevents that.
    """
    if path.suffix != ".tar":
        raise ValueError(f"a shard's name ends in .tar, found {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (staging or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            table = _write_members(file, path, samples)
            file.flush()
            os.fsync(file.fileno())
        sha256 = sha256_file(temporary)
        if ready is not None:
            ready()
        index_path(path).unlink(missing_ok=True)  # that of a shard of this name before
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    index = _index_of(path, sha256, table)
    _write_index(index, table, staging)
    return index


def write_sides(
    shards: Path,
    unit: str,
    samples: Iterable[tuple[str, Sample]],
    *,
    staging: Path | None = None,
    ready: Callable[[], None] | None = None,
) -> list[dict[str, Any]]:
    """(split, sample) pairs -> SHARDS/SPLIT/UNIT.tar for each split that has samples, and a row about each.

    `staging` and `ready` are those of `write_shard`.
    """
    sides: dict[str, list[Sample]] = {}
    for split, sample in samples:
        sides.setdefault(split, []).append(sample)
    rows = []
    for split, members in sorted(sides.items()):
        name = f"{split}/{unit}.tar"
        index = write_shard(shards / name, members, staging=staging, ready=ready)
        rows.append({"shard": name, "samples": len(members), "bytes": index.num_bytes, "sha256": index.sha256})
    return rows


def _write_members(file: BinaryIO, path: Path, samples: Iterable[Sample]) -> np.ndarray:
    members, seen = Members(path), set()
    plain = {"user": "", "group": "", "mode": 0o644, "mtime": 0, "encoder": False}  # nothing of this machine
    with require("webdataset").TarWriter(file, **plain) as writer:
        for sample in samples:
            if not sample.key or "." in sample.key or "/" in sample.key or sample.key in seen:
                raise ValueError(f"key {sample.key!r} is empty, repeated or holds a dot or a slash")
            seen.add(sample.key)
            for field, data in sorted(sample.fields.items()):
                if not field or field[0] == "_" or "/" in field or field != field.lower():
                    raise ValueError(f"{sample.name}: field {field!r}: needs lower case, no slash, no _ in front")
                writer.write({KEY: sample.key, field: data})
                padded = -(-len(data) // 512) * 512
                members.add(sample.key, field, writer.tarstream.offset - padded, len(data), digest_of(data))
                writer.tarstream.members = []  # there may be millions
    return members.table()


def _write_index(index: ShardIndex, table: np.ndarray, staging: Path | None) -> None:
    write_atomic(table_path(index.path), npy_bytes(table), staging=staging)
    head = {"schema": SCHEMA, "bytes": index.num_bytes, "sha256": index.sha256, "samples": len(table)}
    line = json.dumps(head | {"fields": index.fields}, separators=(",", ":"))
    write_atomic(index_path(index.path), f"{line}\n".encode(), staging=staging)


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the content of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# --- reading ---------------------------------------------------------------------------------------------------------


class Shards:
    """All samples of a folder of shards (or of one shard), in the order of shard names; `shards[i]` reads one.

    Opening reads the index of every shard once and checks it; contents are read when they are asked for. Processes may
    share one (fork) or get a copy (pickle). FileNotFoundError or ValueError, one line each: no shards, a torn or
    compressed one, a broken index.
    """

    def __init__(self, source: Path | Sequence[Path]) -> None:
        """source: a folder, one shard, or some of them in an order of one's own."""
        shards = shards_in(source) if isinstance(source, Path) else source
        self.__setstate__([_read_index(shard) for shard in shards])

    def __getstate__(self) -> list[ShardIndex]:
        return self.indices

    def __setstate__(self, indices: list[ShardIndex]) -> None:
        self.indices = indices
        self._starts = [0]
        for index in self.indices:
            self._starts.append(self._starts[-1] + index.num_samples)
        self._open = functools.lru_cache(_OPEN)(lambda shard: open(self.indices[shard].path, "rb"))  # noqa: SIM115
        self._table = functools.lru_cache(_OPEN)(lambda shard: self.indices[shard].load())

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def sizes(self) -> list[int]:
        """How many samples each shard has."""
        return [index.num_samples for index in self.indices]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields; a sample may lack some."""
        return tuple(dict.fromkeys(field for index in self.indices for field in index.fields))

    def __getitem__(self, position: int) -> Sample:
        return self.read(position)

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(position) for position in range(len(self)))

    def read(self, position: int, fields: Collection[str] | None = None) -> Sample:
        """A sample with all its fields, or with those of `fields` that it has; no other bytes are read."""
        if not 0 <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        shard = bisect.bisect_right(self._starts, position) - 1
        index, table, file = self.indices[shard], self._table(shard), self._open(shard)
        name, *places = table[position - self._starts[shard]].item()
        key, found = name.decode("utf-8", "surrogateescape"), {}
        for field, (offset, size, digest) in zip((table.dtype.names or ())[1:], places):
            if size >= 0 and (fields is None or field in fields):
                found[field] = data = os.pread(file.fileno(), size, offset)
                if len(data) != size or (digest and digest_of(data) != digest):
                    raise ValueError(f"{index.path}: sample {key}: {field} {_CHANGED} {index_path(index.path).name}")
        return Sample(key, found, index.path)

    def column(self, field: str) -> np.ndarray:
        """(samples,) of `offset`, `size` (-1: none) and `digest` (0: unknown) of one field."""
        none = np.array((0, -1, 0), dtype=PLACE)
        columns = [i.load()[field] if field in i.fields else np.full(i.num_samples, none) for i in self.indices]
        return np.concatenate(columns)

    def digest(self) -> str:
        """One sha256 over the names and contents of all shards; ValueError when one is not what its index says."""
        digest = hashlib.sha256()
        for index, sha256 in zip(self.indices, sha256_files([index.path for index in self.indices])):
            if index.sha256 not in (None, sha256):
                raise ValueError(f"{index.path}: {_CHANGED} {index_path(index.path).name}")
            digest.update(f"{index.path.name}\0{sha256}\n".encode())
        return digest.hexdigest()


def shards_in(source: Path) -> list[Path]:
    """The shards of a folder by name, or the one that is named; errors of `Shards`."""
    if source.is_dir():
        shards = sorted(path for path in source.glob("*.tar") if not path.name.startswith("."))
        packed = sorted(p for p in source.iterdir() if p.suffix == ".tgz" or p.name.endswith(_PACKED))
        plain = {path.stem for path in shards}
        if left_out := [p for p in packed if p.name.partition(".t")[0] not in plain and not p.name.startswith(".")]:
            raise ValueError(f"{left_out[0]}: compressed; decompress it first, samples are read at their places")
    else:
        shards = [source] if os.path.lexists(source) else []
    if not shards:
        raise FileNotFoundError(f"no shards (*.tar) in {source}; name a folder that holds some")
    for shard in shards:
        if not stat.S_ISREG(shard.stat().st_mode):
            raise ValueError(f"{shard}: is no regular file; a shard is a tar file")
    return shards


def _read_index(shard: Path) -> ShardIndex:
    path, num_bytes = index_path(shard), shard.stat().st_size
    if not path.is_file():
        return _index_of(shard, None, scan(shard))
    with _refused(path):
        head = read_json(path)
        schema, expected = head["schema"], head["bytes"]
    if schema not in (1, SCHEMA):
        raise ValueError(f"{path}: schema {schema}, this version reads {SCHEMA}; write the shards again")
    if expected != num_bytes:
        raise ValueError(f"{shard}: {num_bytes} bytes, its index says {expected}; copy or write it again")
    with _refused(path):
        if not isinstance(head["sha256"], str):
            raise ValueError("sha256 must be a text")
        if schema == 1:
            index = _index_of(shard, head["sha256"], _first_schema(shard, head["samples"]))
        else:
            index = ShardIndex(shard, num_bytes, head["sha256"], head["samples"], tuple(head["fields"]))
        table = index.load()
        if table.shape != (index.num_samples,) or table.dtype.names != (KEY, *index.fields):
            raise ValueError(f"{table_path(shard).name} is of another shard")
        check_places(table, num_bytes)
    return index


def _index_of(shard: Path, sha256: str | None, table: np.ndarray) -> ShardIndex:
    names = (table.dtype.names or ())[1:]
    return ShardIndex(shard, shard.stat().st_size, sha256, len(table), names, table)


def _first_schema(shard: Path, samples: Any) -> np.ndarray:
    """Schema 1 holds all places itself, "samples": [[key, {field: [offset, size]}], ...]."""
    members = Members(shard)
    for key, places in samples:
        for field, (offset, size) in places.items():
            if not (isinstance(offset, int) and isinstance(size, int) and size >= 0):
                raise ValueError(f"place [{offset}, {size}] of {key}.{field}")
            members.add(str(key), field, offset, size)
    return members.table()


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Around what reads an index: whatever is wrong with its form becomes one line."""
    try:
        yield
    except (*MALFORMED, OSError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path}: not an index of a shard ({why}); delete it to scan the shard instead") from None
