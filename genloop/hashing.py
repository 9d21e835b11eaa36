"""Content hashes of inputs, and a cache of them: a file is read again only when its size or modification time changed.

The cache is one SQLite file, $XDG_CACHE_HOME/genloop/hashes.sqlite (by default below ~/.cache), that any number of
processes share. Where it cannot be read or written, every file is read. A file modified within the last two seconds is
not cached: a second edit could leave its time as it is.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from genloop.rundir import sha256_file

SETTLED_NS = 2_000_000_000
_LOCK_SECONDS = 5.0
_TABLE = "CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
_Stamp = tuple[bytes, int, int]  # absolute path, size, mtime in ns


def sha256_tree(path: Path) -> str:
    """Hex digest of a file, or of a folder's relative names and contents; nothing hidden counts."""
    if path.is_file():
        return sha256_files([path])[0]
    files = sorted(files_below(path))
    digest = hashlib.sha256()
    for file, sha256 in zip(files, sha256_files(files), strict=True):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def sha256_files(files: Sequence[Path]) -> list[str]:
    """The sha256 of each file's content, from the cache where it knows them."""
    stamps = [_stamp(file) for file in files]
    known = _read(stamps)
    found, new = [], []
    for file, stamp in zip(files, stamps, strict=True):
        sha256 = known.get(stamp)
        if sha256 is None:
            settled = time.time_ns() - stamp[2] > SETTLED_NS
            sha256 = sha256_file(file)
            if settled and _stamp(file) == stamp:
                new.append((*stamp, sha256))
        found.append(sha256)
    if new:
        with suppress(sqlite3.Error, OSError, RuntimeError), closing(_open()) as cache, cache:
            cache.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", new)
    return found


def files_below(folder: Path, above: Sequence[Path] = ()) -> Iterator[Path]:
    """Every file in a folder at any depth, also behind links to folders, but not behind one that leads back up.

    What is hidden behind a dot is left out, with all that is below it.
    """
    here = folder.resolve()
    if here in above:
        return
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from files_below(entry, (*above, here))
        elif entry.is_file():
            yield entry


def cache_file() -> Path:
    """Where hashes are kept; RuntimeError without a home folder."""
    place = os.environ.get("XDG_CACHE_HOME")
    return (Path(place) if place else Path.home() / ".cache") / "genloop" / "hashes.sqlite"


def _read(stamps: Sequence[_Stamp]) -> dict[_Stamp, str]:
    found: dict[_Stamp, str] = {}
    with suppress(sqlite3.Error, OSError, RuntimeError), closing(_open()) as cache:
        for stamp in stamps:
            query = "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND mtime_ns = ?"
            if row := cache.execute(query, stamp).fetchone():
                found[stamp] = row[0]
    return found


def _open() -> sqlite3.Connection:
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_LOCK_SECONDS)
    connection.execute(_TABLE)
    return connection


def _stamp(file: Path) -> _Stamp:
    state = file.stat()
    return os.fsencode(file.resolve()), state.st_size, state.st_mtime_ns
