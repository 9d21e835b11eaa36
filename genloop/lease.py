"""Leases: a file that says which process works on something, kept alive by a heartbeat. Plain files, no coordinator.

A lease is linked into place (atomic, NFS-safe). It is taken over when its process is known to be gone or its heartbeat
is old; only one of several that try succeeds.
"""

import contextlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.rundir import json_line, write_new

log = logging.getLogger(__name__)
HEARTBEAT = 1.0  # seconds between two signs of life
TORN = 10.0  # seconds after which a lease without content is one that a crash of the machine has torn


@dataclass(frozen=True)
class Lease:
    """One worker's claim to what `path` stands for; `staging` is a folder on the same file system."""

    path: Path
    staging: Path
    worker: str
    timeout: float = 120.0  # seconds of silence after which a lease is stale

    def acquire(self) -> bool:
        """Take the lease unless a living worker holds it -> whether it is ours now."""
        return self._link() or (self._clear_stale() and self._link())

    def beat(self) -> None:
        """A sign of life; a file server that stumbles must not end the heartbeat."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give it back."""
        self.path.unlink(missing_ok=True)

    def holder(self) -> str:
        """The worker that holds it, as far as the file says so."""
        with contextlib.suppress(OSError):
            return str(read_object(self.path.read_text()).get("worker", "unknown"))
        return "unknown"

    def _link(self) -> bool:
        body = {"worker": self.worker, **_process(os.getpid()), "time": time.time()}
        try:
            return write_new(self.path, json_line(body), staging=self.staging)
        except FileNotFoundError:  # the run was finished and tidied up
            return False

    def _clear_stale(self) -> bool:
        """Remove a lease whose owner is gone; only one of several workers succeeds."""
        try:
            text = self.path.read_text()
            silence = self._filesystem_now() - self.path.stat().st_mtime
        except FileNotFoundError:
            return True
        if silence < self.timeout and not _owner_is_gone(read_object(text), silence):
            return False
        grave = self.staging / f"stale.{uuid.uuid4().hex}"
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return False
        if grave.read_text() != text:  # a living lease slipped in between: put it back
            with contextlib.suppress(FileExistsError):
                os.link(grave, self.path)
            grave.unlink()
            return False
        grave.unlink()
        log.info("took over %s: its worker is gone", self.path.name)
        return True

    def _filesystem_now(self) -> float:
        """The time on the file server, so that clocks of several machines need not agree."""
        clock = self.staging / f"clock.{self.worker}"
        clock.touch()
        return clock.stat().st_mtime


def read_object(text: str) -> dict[str, Any]:
    """The JSON object of a small file; empty when a crash of the machine has torn it."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


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
    if "pid" not in lease:
        return silence > TORN
    here = _process(os.getpid())
    if not here["boot"] or any(here[key] != lease.get(key) for key in ("host", "space", "boot")):
        return False
    return _process(lease["pid"])["start"] != lease["start"]
