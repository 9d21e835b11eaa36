"""Files that may lie in a shard: SHARD.tar/KEY.FIELD names one of its samples' fields, as any other path names a file.

Whoever reads images by path reads those of folders and of shards alike.
"""

import functools
from pathlib import Path

from genloop.data.shards import Shards
from genloop.data.tar_index import KEY
from genloop.reading import read_bytes


def is_member(path: Path) -> bool:
    """Whether a path names a field of a sample in a shard."""
    return path.parent.suffix == ".tar"


def is_there(path: Path) -> bool:
    """Whether a file, or a field of a sample, is there."""
    if not is_member(path):
        return path.is_file()
    key, _, field = path.name.partition(".")
    shards, positions = _open(path.parent) if path.parent.is_file() else (None, {})
    return shards is not None and key in positions and shards.column(field)["size"][positions[key]] >= 0


def read_any(path: Path) -> bytes:
    """The content of a file, or of a field of a sample; errors of `read_bytes` and of `Shards`."""
    if not is_member(path):
        return read_bytes(path)
    shards, positions = _open(path.parent)
    key, _, field = path.name.partition(".")
    fields = shards.read(positions[key], {field}).fields if key in positions else {}
    if field not in fields:
        raise FileNotFoundError(f"{path.parent}: no {field} of sample {key!r}")
    return fields[field]


def _open(shard: Path) -> tuple[Shards, dict[str, int]]:
    """A shard, and the place of each of its keys."""
    state = shard.stat()
    return _opened(shard, state.st_size, state.st_mtime_ns)


@functools.lru_cache(64)
def _opened(shard: Path, size: int, mtime_ns: int) -> tuple[Shards, dict[str, int]]:
    shards = Shards(shard)
    keys = shards.indices[0].load()[KEY].tolist()
    return shards, {key.decode("utf-8", "surrogateescape"): place for place, key in enumerate(keys)}
