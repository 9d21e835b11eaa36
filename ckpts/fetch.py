"""The published files of a registered checkpoint: fetched once, checked as listed, put in place whole.

A folder appears under its name by one rename, when every file has arrived and was checked; until then it is NAME.part
beside it, from which the same command goes on. One process downloads, others that ask for the same name wait.
`fetched.json` in the folder keeps repository, commit, sizes and sha256, which `verify` compares without a network.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ckpts.convert import CONVERTERS
from ckpts.download import RemoteFile, file_name, listing
from ckpts.resolve import FETCHED_FILE, REGISTRY, Entry, known, missing_files, part_of
from genloop.environment import imports_alike
from genloop.reading import parse_json, read_bytes
from genloop.registry import load, require
from genloop.rundir import sha256_file, write_json

STALL_SECONDS = 180.0
_LOOK_SECONDS = 0.2
_SAY_SECONDS = 10.0
Say = Callable[[str], None]


def fetch(name: str, say: Say, *, stall: float = STALL_SECONDS, path: Path = REGISTRY) -> Path:
    """Bring a registered checkpoint here -> its folder.

    Args:
        say: receives lines about what happens.
        stall: seconds without a new byte after which a download is started again, the second time without hf-xet.

    Raises:
        ValueError, FileNotFoundError: it cannot be fetched, or is not known.
        OSError: one line: no network, no permission, no space, gated or missing repository, other content than listed.
    """
    entry = known(name, path=path)
    if not missing_files(entry):
        say(f"{name}: there already: {entry.folder}")
        return entry.folder
    if entry.hub is None and entry.url is None:
        raise ValueError(f"{name}: nothing is known to fetch ({entry.made_by or entry.source})")
    with _lock(entry, say):
        if missing_files(entry):  # else another process has fetched it meanwhile
            _fetch(entry, say, stall)
    say(f"{name}: {entry.folder}")
    return entry.folder


@contextmanager
def _lock(entry: Entry, say: Say) -> Iterator[None]:
    filelock = require("filelock")
    file = entry.folder.with_name(f".{entry.folder.name}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(file)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"{entry.name}: another process is fetching it; waiting")
            lock.acquire()
    except PermissionError:
        raise PermissionError(
            f"{entry.name}: cannot write into {file.parent}; name a folder by CHECKPOINT_DIR"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _fetch(entry: Entry, say: Say, stall: float) -> None:
    part = part_of(entry.folder)
    part.mkdir(exist_ok=True)
    if entry.url is not None:
        _fetch_and_convert(entry, part, say, stall)
    else:
        _fetch_from_hub(entry, part, say, stall)
    shutil.rmtree(part)


def _fetch_from_hub(entry: Entry, part: Path, say: Say, stall: float) -> None:
    hub = entry.hub
    assert hub is not None
    commit, files = listing(hub.repository, hub.revision, hub.folder, hub.only)
    size = sum(file.size for file in files)
    say(f"{entry.name}: {len(files)} files, {_bytes(size)}, of {hub.repository} at {commit}")
    _check_space(entry, sum(f.size for f in files if not (part / f.path).is_file()) - _size(part / ".cache"))
    task = {"repository": hub.repository, "commit": commit, "files": [f.path for f in files], "folder": str(part)}
    _download(entry.name, task, part, say, stall, size)
    _check_content(entry, files, part)
    arrived = part / hub.folder
    record = {
        "repository": hub.repository,
        "revision": commit,
        "files": {
            str(Path(f.path).relative_to(hub.folder)): {
                "size": f.size,
                "sha256": f.sha256 or sha256_file(part / f.path),
            }
            for f in files
        },
    }
    write_json(arrived / FETCHED_FILE, record)
    _put_in_place(arrived, entry.folder)


def _fetch_and_convert(entry: Entry, part: Path, say: Say, stall: float) -> None:
    url = entry.url
    assert url is not None
    file = part / file_name(url.address)
    if not file.is_file():
        size = _length(url.address)
        say(f"{entry.name}: {_bytes(size) if size else 'a file'} from {url.address}")
        _check_space(entry, 2 * size)  # as published, and converted
        task = {"address": url.address, "sha256_prefix": url.sha256_prefix, "folder": str(part)}
        _download(entry.name, task, part, say, stall, size)
    say(f"{entry.name}: converting {file.name}")
    load(CONVERTERS[url.convert])(file, entry.folder, backbone=entry.backbone or None)


def _length(address: str) -> int:
    """Bytes that a server announces; 0: it does not say."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError) as error:
        raise OSError(f"{address}: {error}") from None


def _check_space(entry: Entry, needed: int) -> None:
    free = shutil.disk_usage(entry.folder.parent).free
    if needed > free:
        raise OSError(
            f"{entry.name} needs {_bytes(needed)} in {entry.folder.parent}, where {_bytes(free)} are free;"
            " CHECKPOINT_DIR names another folder"
        )


def _download(name: str, task: dict[str, Any], part: Path, say: Say, stall: float, size: int) -> None:
    for environment in ({}, {"HF_HUB_DISABLE_XET": "1"}):
        if _watched(name, task, part, say, stall, size, environment):
            return
        say(f"{name}: nothing arrived for {stall:g} s" + ("" if environment else "; again, without hf-xet"))
    raise OSError(f"{name}: nothing arrived for {stall:g} s, twice; the same command goes on from here")


def _watched(
    name: str, task: dict[str, Any], part: Path, say: Say, stall: float, size: int, environment: dict[str, str]
) -> bool:
    """Run one download -> whether it came to its end; OSError with its line when it failed."""
    words = [sys.executable, "-m", "ckpts.download"]
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **imports_alike()}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            text=True,
            env={**os.environ, **quiet, **environment},
        )
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError):  # it has ended already, and says why
                child.stdin.write(json.dumps(task) + "\n")
                child.stdin.flush()
            if not _grows(child, name, part, say, stall, size):
                return False
        finally:
            child.kill()
            child.wait()
        if child.returncode == 0:
            return True
        out.seek(0)
        errors.seek(0)
        raise OSError(_reason(out.read(), errors.read()))


def _reason(out: str, errors: str) -> str:
    try:
        return str(parse_json(out)["error"])
    except ValueError:
        lines = errors.strip().splitlines()
        return f"the download ended: {lines[-1] if lines else 'killed'}"


def _grows(child: "subprocess.Popen[str]", name: str, part: Path, say: Say, stall: float, size: int) -> bool:
    """Wait until the download is over (True), or has not grown for too long (False)."""
    held, grown, said = _size(part), time.monotonic(), time.monotonic()
    first, began = held, grown
    while child.poll() is None:
        time.sleep(_LOOK_SECONDS)
        now, here = time.monotonic(), _size(part)
        if here > held:
            held, grown = here, now
        if now - grown > stall:
            return False
        if now - said > _SAY_SECONDS:
            said = now
            rate = f"{_bytes(int((held - first) / (now - began)))}/s"
            say(f"{name}: {_bytes(held)}" + (f" of {_bytes(size)}" if size else "") + f", {rate}")
    return True


def _check_content(entry: Entry, files: Sequence[RemoteFile], part: Path) -> None:
    """Every file as the server lists it and the registry knows it; one that differs is removed, to be fetched again."""
    differing = []
    for file in files:
        here = part / file.path
        same = here.stat().st_size == file.size
        same = same and (_git_sha1(here) == file.git_sha1 if file.sha256 is None else sha256_file(here) == file.sha256)
        if not same:
            here.unlink()
            differing.append(file.path)
    if differing:
        raise OSError(f"{entry.name}: arrived with other content than listed: {', '.join(differing)}; run it again")
    hub_folder = entry.hub.folder if entry.hub else ""
    absent = [name for name in entry.files if not (part / hub_folder / name).is_file()]
    if absent:
        raise OSError(f"{entry.name}: the repository has no {', '.join(absent)}")


def _git_sha1(file: Path) -> str:
    data = read_bytes(file)
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _put_in_place(arrived: Path, folder: Path) -> None:
    shutil.rmtree(arrived / ".cache", ignore_errors=True)  # huggingface_hub's own notes on a download
    if not folder.exists():
        arrived.rename(folder)
        arrived.mkdir()
        return
    for file in sorted(arrived.rglob("*"), key=lambda file: file.name == FETCHED_FILE):  # what somebody began by hand
        if file.is_file():
            target = folder / file.relative_to(arrived)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def _size(folder: Path) -> int:
    """Bytes of all files; those that vanish meanwhile do not count."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(at, name).stat().st_blocks * 512  # an unfinished file may be sparse
    return total


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
