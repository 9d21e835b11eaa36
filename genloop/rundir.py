"""The run folder: atomic files, content hashes, provenance, and the fingerprint that a resumed run must match.

Layout: config.yaml, env.json, run.json (job, fingerprint, input hashes), rows/, images/, logs/, metrics.jsonl,
report/; leases/, failed/ and tmp/ belong to the ledger.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from genloop.reading import read_json_object

MIN_FREE_BYTES = 64 << 20
_LONGEST_LINE = 1 << 16
_UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINKS = _UNSUPPORTED | {errno.EPERM, errno.EMLINK}
_NO_LOCKS = _UNSUPPORTED | {errno.ENOLCK}
_NO_FOLDER_SYNC = _UNSUPPORTED | {errno.EINVAL}


class RunFailed(RuntimeError):
    """A run came to its end and its outcome is a failure; the message is one line and needs no traceback."""

    exit_code = 1


class RunError(ValueError):
    """A run folder that cannot be used for this config; the message is one line."""


class BadInput(RunFailed):
    """What a run was given turned out to be of no use before anything was computed; the message is one line."""

    exit_code = 2


def write_atomic(
    path: Path, data: bytes, *, staging: Path | None = None, ready: Callable[[], None] | None = None
) -> None:
    """Write a file so that it is there whole or not at all, and survives a power cut once this returns.

    `staging` is a folder on the same file system for the temporary file; by default it lies beside the target. `ready`
    is called when the file is complete, before it appears: what it raises prevents that.
    """
    temporary = (staging or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        _write_synced(temporary, data)
        if ready is not None:
            ready()
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say where
            error.filename = os.fspath(path)
        raise
    sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, staging: Path | None = None) -> bool:
    """Create a file whole, unless there is one of that name -> whether this call made it; one of several callers does.

    An NFS server may make the link and lose its answer: what counts is whether the temporary file has two names then.
    FileNotFoundError when its folder, or `staging`, was tidied up meanwhile.
    """
    if path.exists():
        return False
    temporary = (staging or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        _write_synced(temporary, data)
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _write_synced(path: Path, data: bytes, mode: Literal["wb", "xb"] = "wb") -> None:
    with open(path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create(path: Path, data: bytes) -> bool:
    """`write_new` where a file system has no hard links: for a moment the file is there without its content."""
    try:
        _write_synced(path, data, "xb")
    except FileExistsError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with _unless(_NO_FOLDER_SYNC):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unless(errors: Set[int]) -> Iterator[None]:
    """Go on behind the body when a file system cannot do it and says so by one of these numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise


def remove(path: Path) -> None:
    """Remove a file, whatever lies in its place, or nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` of indented JSON with a trailing newline."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Indented JSON with a trailing newline."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def json_line(row: Mapping[str, Any]) -> bytes:
    """One row of a JSON-lines file."""
    return (json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def append_metrics(run: Path, row: Mapping[str, Any]) -> None:
    """Add one line to RUN/metrics.jsonl; safe from several processes of one machine."""
    append_line(run / "metrics.jsonl", row)


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to a JSON-lines file, in place of a last line that a full disk or a crash has torn.

    Rows of several processes do not mix, unless the file system has no locks (Lustre without `flock`).
    """
    with open(path, "a+b") as file:
        with _unless(_NO_LOCKS):
            fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_LINE))
        torn = file.read().rpartition(b"\n")[2]
        file.truncate(size - len(torn))
        file.write(json_line(row))
        file.flush()
        os.fsync(file.fileno())  # before a checkpoint says that the steps so far are done


def check_inside(name: str) -> str:
    """A path that a row names, with "/" between its parts -> itself; ValueError unless it lies below its folder."""
    if not isinstance(name, str) or "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"must be a path below its folder, found {name!r}")
    return name


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_of(job: str, keys: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    """What a run computes: its job, its config without launch settings, the hash of every input."""
    body = {"job": job, "keys": dict(keys), "inputs": dict(inputs)}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {**body, "digest": digest}


def check_run(run: Path, fingerprint: Mapping[str, Any]) -> None:
    """Refuse a folder that cannot be written, has no room, or was started with another fingerprint."""
    _check_place(run)
    existing = read_run(run)
    if existing is not None:
        _require_same(run, existing, fingerprint)
    elif (run / "rows").exists():
        raise RunError(f"{run} holds results but no run.json; use another `out`")


def await_run(run: Path, job: str, keys: Mapping[str, Any], *, seconds: float = 1800.0) -> dict[str, Any]:
    """What ranks above 0 do instead of hashing the inputs: wait for the fingerprint that rank 0 writes, and return it.

    RunError when it is of another job or config; its inputs are not compared, rank 0 does that. TimeoutError after
    `seconds` without one. A damaged file counts as none yet: without hard links a file is there before its content.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(RunError):
            if existing := read_run(run):
                break
        if time.monotonic() > deadline:
            raise TimeoutError(f"rank 0 wrote no usable {run / 'run.json'} within {seconds:.0f} s; see its output")
        time.sleep(0.1)
    _require_same(run, existing, fingerprint_of(job, keys, existing["inputs"]))
    return existing


def _require_same(run: Path, existing: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
    """RunError that lists what differs, unless both fingerprints are one."""
    if existing["digest"] == fingerprint["digest"]:
        return
    differences = []
    if existing["job"] != fingerprint["job"]:
        differences.append(f"job {existing['job']}, this is {fingerprint['job']}")
    for group in ("keys", "inputs"):
        for key in sorted({*existing[group], *fingerprint[group]}):
            old, new = existing[group].get(key), fingerprint[group].get(key)
            if old != new and group == "keys":
                differences.append(f"{key}={old}, this config has {key}={new}")
            elif old != new:
                differences.append(f"another content of `{key}`")
    listed = "; ".join(differences[:4]) + (f"; and {len(differences) - 4} more" if len(differences) > 4 else "")
    hint = "" if _holds_results(run) else ", or remove this one, which holds no results"
    raise RunError(f"{run} was started with {listed}; use another `out` or start from that config{hint}")


def _holds_results(run: Path) -> bool:
    """Whether anything was computed, or is just being computed, in a run folder."""
    own = {"config.yaml", "env.json", "run.json", "plan.json", "logs", "tmp"}
    return any(path.name not in own and (path.is_file() or any(path.iterdir())) for path in run.iterdir())


def read_run(run: Path) -> dict[str, Any] | None:
    """The fingerprint of a run folder, or None when it has none."""
    try:
        fingerprint = read_json_object(run / "run.json")
    except FileNotFoundError:
        return None
    except ValueError:
        fingerprint = {}
    kinds = {"job": str, "keys": dict, "inputs": dict, "digest": str}
    if not all(isinstance(fingerprint.get(key), kind) for key, kind in kinds.items()):
        raise RunError(f"{run / 'run.json'} is damaged; use another `out`")
    return fingerprint


def start_run(run: Path, config_text: str, fingerprint: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Create the run folder with its provenance; a resumed one only gets a line in logs/starts.jsonl.

    Of several that start one folder at the same moment the first decides; RunError for one with another config.
    """
    (run / "logs").mkdir(parents=True, exist_ok=True)
    if not write_new(run / "run.json", json_bytes(fingerprint)):
        check_run(run, fingerprint)
    for name, data in (("config.yaml", config_text.encode()), ("env.json", json_bytes(environment))):
        if not (run / name).exists():
            write_atomic(run / name, data)
    append_line(run / "logs" / "starts.jsonl", environment)


def check_cache(folder: Path | None, key: str) -> None:
    """ValueError when something that is no folder, a broken link also, stands where a folder of answers should be."""
    if folder is not None and not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        raise ValueError(f"{key}: {folder} is a file or a broken link; a folder is needed")


def _check_place(run: Path) -> None:
    if run.exists() and not run.is_dir():
        raise RunError(f"out: {run} is a file; a run needs a folder")
    place, here = run.resolve(), Path.cwd()
    if place == place.parent or (place != here and here.is_relative_to(place)):
        raise RunError(f"out: {run} is the root, or holds the current folder; a run needs a folder of its own")
    parent = run
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise RunError(f"out: {parent} is a file; a run needs a folder")
    probe = parent / f".genloop-{uuid.uuid4().hex}.tmp"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise RunError(f"out: cannot write below {parent}: {error.strerror}") from None
    free = shutil.disk_usage(parent).free
    if free < MIN_FREE_BYTES:
        raise RunError(
            f"out: only {free >> 20} MiB free below {parent}; at least {MIN_FREE_BYTES >> 20} MiB are needed"
        )
