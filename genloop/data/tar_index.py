"""Where the samples of a tar file lie: one numpy row a sample, with its key and the place of each of its fields.

A row has `__key__` (UTF-8, zero-padded) and for each field of the shard an offset, a size (-1: this sample lacks the
field) and a digest of the bytes (0: unknown). Names follow WebDataset: the key ends at the first dot of the last part
of a path, the rest is the field, in lower case; members without both are passed over.
"""

import hashlib
import os
import re
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

KEY = "__key__"
PLACE = np.dtype([("offset", "<i8"), ("size", "<i8"), ("digest", "<i8")])
MAX_FIELDS = 64
_CHUNK = 1 << 16  # rows
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_METADATA = re.compile(r"__[^/]*__($|/)")  # what WebDataset keeps for itself


class Members:
    """The members of a tar, added one by one -> the table of its samples, in the order of their first members."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._keys: dict[str, int] = {}
        self._fields: dict[str, int] = {}
        self._columns = [array("q") for _ in range(5)]  # sample, field, offset, size, digest

    def add(self, key: str, field: str, offset: int, size: int, digest: int = 0) -> None:
        """One member; ValueError when a shard has too many different fields to be what it is taken for."""
        sample, number = self._keys.setdefault(key, len(self._keys)), self._fields.setdefault(field, len(self._fields))
        if number == MAX_FIELDS:
            raise ValueError(
                f"{self.where}: more than {MAX_FIELDS} different fields, such as {field!r} of {key!r}; a member is "
                "named KEY.FIELD, and the key ends at the first dot"
            )
        for column, value in zip(self._columns, (sample, number, offset, size, digest)):
            column.append(value)

    def table(self) -> np.ndarray:
        """(samples,) structured; ValueError when there are none or one has a field twice."""
        if not self._keys:
            raise ValueError(f"{self.where}: holds no samples; members must be named KEY.FIELD, as 0001.png")
        sample, number, *places = (np.frombuffer(column, dtype=np.int64) for column in self._columns)
        members, counts = np.unique(sample * MAX_FIELDS + number, return_counts=True)
        if twice := members[counts > 1].tolist():
            key, field = (list(names)[n] for names, n in zip((self._keys, self._fields), divmod(twice[0], MAX_FIELDS)))
            raise ValueError(f"{self.where}: sample {key!r} has the field {field!r} twice; remove one of them")
        keys = np.array([key.encode("utf-8", "surrogateescape") for key in self._keys])
        table = np.zeros(len(keys), dtype=[(KEY, keys.dtype), *((field, PLACE) for field in self._fields)])
        table[KEY] = keys
        for field, this in self._fields.items():
            column, chosen = table[field], number == this
            column["size"] = -1
            for name, values in zip(PLACE.names or (), places):
                column[name][sample[chosen]] = values[chosen]
        return table


def digest_of(data: bytes) -> int:
    """A positive number of 63 bits that tells contents apart."""
    return (int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1) or 1


def scan(shard: Path) -> np.ndarray:
    """The table of a tar file from its own headers. ValueError in one line when it is torn, compressed or no tar."""
    with open(shard, "rb") as file:
        start, num_bytes = file.read(6), os.fstat(file.fileno()).st_size
    if kind := next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None):
        raise ValueError(f"{shard}: compressed ({kind}); decompress it first, samples are read at their places")
    members = Members(shard)
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in iter(lambda: _next(tar), None):
                tar.members = []  # type: ignore[attr-defined]  # the index needs none, and there may be millions
                if not 0 <= member.size <= num_bytes:  # `tarfile` would go back, again and again
                    raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
                if not member.isreg() or _METADATA.match(member.name):
                    continue
                folder, slash, name = member.name.rpartition("/")
                stem, _, field = name.partition(".")
                if not stem or not field:
                    continue
                if member.issparse():
                    raise ValueError(f"{shard}: {member.name} is a sparse file; write the shard without holes")
                members.add(f"{folder}{slash}{stem}", field.lower(), member.offset_data, member.size)
            _check_end(shard, tar.offset)
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: not a whole tar file ({error}); copy or write it again") from None
    return members.table()


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:  # odd numbers, headers of headers
        raise tarfile.ReadError(" ".join(str(error).split())) from None


def _check_end(shard: Path, offset: int) -> None:
    """`tarfile` stops without an error at a damaged header; only a block of zeros is the end."""
    with open(shard, "rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no member and no end of the archive at byte {offset}")


def check_places(table: np.ndarray, num_bytes: int) -> None:
    """ValueError unless every place of a table lies in a file of `num_bytes`; a mapped table is read in pieces."""
    names = table.dtype.names or ()
    if names[:1] != (KEY,) or table.dtype[0].kind != "S" or any(table.dtype[name] != PLACE for name in names[1:]):
        raise ValueError(f"columns {names[:4]}, expected {KEY} and the places of fields")
    for rows in _pieces(table):
        for field in names[1:]:
            offset, size = rows[field]["offset"], rows[field]["size"]
            if ((size < -1) | (size > num_bytes) | (offset < 0) | (offset > num_bytes - np.maximum(size, 0))).any():
                raise ValueError(f"a place of {field!r} is outside of the shard")


def _pieces(table: np.ndarray) -> Iterator[np.ndarray]:
    if not isinstance(table, np.memmap):
        yield table
        return
    with open(str(table.filename), "rb") as file:  # read, not mapped: mapped pages count as memory of the process
        file.seek(table.offset)
        for first in range(0, len(table), _CHUNK):
            yield np.fromfile(file, dtype=table.dtype, count=min(_CHUNK, len(table) - first))
