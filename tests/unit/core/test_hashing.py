"""Hashes of inputs: of names and contents, and read once as long as size and time stay."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from genloop.hashing import cache_file, sha256_tree
from tests.processes import Worker

HOUR_AGO = time.time_ns() - 3600 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, data: bytes, mtime_ns: int = HOUR_AGO) -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_of_the_same_size_and_time_is_not_read_again(tmp_path):
    path = write(tmp_path / "weights", b"old")
    assert sha256_tree(path) == sha256(b"old")
    write(path, b"new")
    assert sha256_tree(path) == sha256(b"old")  # known by path, size and time: nobody read it
    assert sha256_tree(tmp_path / "weights") == sha256_tree(Path(os.path.relpath(path)))
    cache_file().unlink()
    assert sha256_tree(path) == sha256(b"new")


@pytest.mark.parametrize(("data", "mtime_ns"), [(b"longer", HOUR_AGO), (b"new", HOUR_AGO + 1)], ids=["size", "time"])
def test_another_size_or_time_is_read_again(tmp_path, data, mtime_ns):
    path = write(tmp_path / "weights", b"old")
    sha256_tree(path)
    assert sha256_tree(write(path, data, mtime_ns)) == sha256(data)
    assert sha256_tree(write(path, b"X" * len(data), mtime_ns)) == sha256(data)


def test_a_file_that_has_just_been_written_is_not_cached(tmp_path):
    now = time.time_ns()
    path = write(tmp_path / "weights", b"old", now)
    assert sha256_tree(path) == sha256(b"old")
    assert sha256_tree(write(path, b"new", now)) == sha256(b"new")


def test_nothing_hidden_counts(tmp_path):
    folder = tmp_path / "weights"
    (folder / "parts").mkdir(parents=True)
    write(folder / "parts" / "a", b"content")
    before = sha256_tree(folder)
    (folder / ".cache" / "download").mkdir(parents=True)
    write(folder / ".cache" / "download" / "a.metadata", b"any")
    write(folder / "parts" / ".DS_Store", b"any")
    assert sha256_tree(folder) == before
    write(folder / "parts" / "b", b"any")
    assert sha256_tree(folder) != before


@pytest.mark.parametrize("data", [None, b"no database, but as long as the head of one" * 40])
def test_a_cache_that_cannot_be_used_does_no_harm(tmp_path, data):
    cache_file().parent.parent.mkdir()
    if data is None:
        cache_file().parent.write_bytes(b"a file where the folder should be")
    else:
        cache_file().parent.mkdir()
        cache_file().write_bytes(data)
    path = write(tmp_path / "weights", b"old")
    assert sha256_tree(path) == sha256(b"old")
    assert sha256_tree(write(path, b"new")) == sha256(b"new")


def test_folders_are_hashed_alike_with_and_without_a_cache(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(20):
        write(folder / f"{number}", bytes([number]))
    write(folder / os.fsdecode(b"not \xff utf-8"), b"x")
    assert sha256_tree(folder) == sha256_tree(folder)
    known = sha256_tree(folder)
    cache_file().unlink()
    assert sha256_tree(folder) == known


def test_several_processes_share_the_cache(tmp_path):
    files = [write(tmp_path / f"file{number}", bytes([number]) * 1000) for number in range(4)]
    hashing = {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    workers = [Worker("tests.worlds.hashing", [str(file) for file in files], hashing) for _ in range(2)]
    expected = "".join(f"{sha256(file.read_bytes())}\n" for file in files)
    assert [worker.communicate(60) for worker in workers] == [(expected, "")] * 2
    for file in files:
        write(file, bytes(1000))
    assert "".join(f"{sha256_tree(file)}\n" for file in files) == expected
