"""Leases: a file that says which process works on something, kept alive by a heartbeat. Plain files, no coordinator.

A lease is linked into place (atomic, NFS-safe). It is taken over when its process is known to be gone or its heartbeat
is old, or far in the future because the clock was set back; only one of several that try succeeds. A process that was
suspended for longer than that finds another's lease, or none, in the place of its own: `is_held` says so, and neither
`beat` nor `release` touches it. Whatever else lies there (a folder, a pipe, no JSON) counts as a lease that a crash has
torn.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genloop.reading import object_or_empty
from genloop.rundir import json_line, remove, write_new

log = logging.getLogger(__name__)
HEARTBEAT = 1.0  # seconds between two signs of life
SILENT = 30.0  # seconds without one after which nobody should count on a worker
TORN = 10.0  # seconds after which a lease without content is one that a crash of the machine has torn
_LARGEST = 1 << 20  # bytes that are read of a small file


class LeaseLost(Exception):
    """Another worker has taken over what this one was working on, because it gave no sign of life for too long."""


@dataclass
class Lease:
    """One worker's claim to what `path` stands for; `staging` is a folder on the same file system."""

    path: Path
    staging: Path
    worker: str
    timeout: float = 120.0  # seconds of silence after which a lease is stale
    _body: bytes = field(default=b"", init=False)  # what this worker's lease file holds

    def acquire(self) -> bool:
        """Take the lease unless a living worker holds it -> whether it is ours now."""
        return self._link() or (self._clear_stale() and self._link())

    def is_held(self) -> bool:
        """Whether the file is still the one that `acquire` put there."""
        try:
            return bool(self._body) and _content(self.path) == self._body
        except FileNotFoundError:
            return False

    def is_lost(self) -> bool:
        """Whether another worker has taken it over, as far as a file server says that may stumble."""
        try:
            return not self.is_held()
        except OSError:
            return False

    def beat(self) -> None:
        """A sign of life; a file server that stumbles must not end the heartbeat."""
        with contextlib.suppress(OSError):
            if self.is_held():
                os.utime(self.path)

    def release(self) -> None:
        """Give it back, unless it is another's by now."""
        if self.is_held():
            self._remove(self._body)

    def holder(self) -> str:
        """The worker that holds it, as far as the file says so."""
        with contextlib.suppress(OSError):
            return str(read_object(self.path).get("worker", "unknown"))
        return "unknown"

    def _link(self) -> bool:
        self._body = json_line({"worker": self.worker, **_process(os.getpid()), "time": time.time()})
        try:
            return write_new(self.path, self._body, staging=self.staging)
        except FileNotFoundError:  # the run was finished and tidied up
            return False

    def _clear_stale(self) -> bool:
        """Remove a lease whose owner is gone; only one of several workers succeeds."""
        try:
            found = _content(self.path)
            silence = _now_on(self.staging, self.worker) - self.path.lstat().st_mtime
        except FileNotFoundError:
            return True
        if abs(silence) < self.timeout and not _owner_is_gone(object_or_empty(found), silence):
            return False
        if not self._remove(found):
            return False
        log.info("took over %s: its worker is gone", self.path.name)
        return True

    def _remove(self, body: bytes) -> bool:
        """Remove the lease with this content -> whether that was done here, not by another worker."""
        grave = self.staging / f"stale.{uuid.uuid4().hex}"
        try:
            self.path.rename(grave)
            found = _content(grave)
        except FileNotFoundError:
            return False
        if found != body:  # a living lease slipped in between: put it back
            write_new(self.path, found, staging=self.staging)
        remove(grave)
        return found == body


def _now_on(staging: Path, name: str) -> float:
    """The time on the file server, so that clocks of several machines need not agree."""
    clock = staging / f"clock.{name}"
    clock.touch()
    return clock.stat().st_mtime


def living(folder: Path, staging: Path) -> int:
    """How many leases of a folder have given a sign of life within `SILENT` seconds, by the file server's clock."""
    try:
        found, now = 0, _now_on(staging, socket.gethostname())
    except FileNotFoundError:  # nobody has ever taken one, or all is done and tidied up
        return 0
    for path in folder.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # given back meanwhile
            found += now - path.lstat().st_mtime < SILENT
    return found


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a small file; empty when a crash of the machine has torn it or it is something else."""
    return object_or_empty(_content(path))


def _content(path: Path) -> bytes:
    """The bytes of a small file; none for what is no regular file or may not be read. Does not wait for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EACCES}:  # a link, a socket, another user's
            return b""
        raise
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _LARGEST) if is_file else b""
    finally:
        os.close(descriptor)


def _process(pid: int) -> dict[str, Any]:
    """Identity of a process on its machine: number, start time, PID namespace; all empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        fields, space, boot = [], "", ""
    start = fields[19] if fields and fields[0] not in {"Z", "X"} else ""  # a zombie works no more
    return {"host": socket.gethostname(), "pid": pid, "start": start, "space": space, "boot": boot}


def _owner_is_gone(lease: Mapping[str, Any], silence: float) -> bool:
    """Whether the lease's process is known to have ended; False when that cannot be told from here."""
    if type(lease.get("pid")) is not int:
        return abs(silence) > TORN
    here = _process(os.getpid())
    if not here["boot"] or any(here[key] != lease.get(key) for key in ("host", "space", "boot")):
        return False
    start = _process(lease["pid"])["start"]
    return start != lease.get("start") and not (start == "" and _is_of_another_user(lease["pid"]))


def _is_of_another_user(pid: int) -> bool:
    """Whether there is a process of this number that may not be signalled; /proc may hide it (`hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False
