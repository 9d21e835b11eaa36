"""The ledger: which units of a run are done, leased, failed or free. Plain files, no coordinator.

A unit is a fixed slice of the items, independent of the number of workers. A worker claims one by linking a lease
file into place (atomic, NFS-safe), keeps it alive with a heartbeat, and completes it by renaming the row file into
RUN/rows: that file is the done-marker, appears last and is never replaced. A lease is taken over when its process is
gone or its heartbeat is old. A worker that was suspended meanwhile sees that at its next file and leaves the unit to
the other; should two ever write at the same moment, both write the same bytes.

    RUN/rows/00002.jsonl    done: one JSON line an item
    RUN/checksums/00002     of all files of a unit that is done, as sha256sum writes and checks them
    RUN/leases/00002        being worked on: who, where, since when
    RUN/logs/W.units.jsonl  of worker W: unit, items, seconds, CPU-seconds, on a GPU the most bytes that tensors took
    RUN/failed/00002.json   gave up: reason, traceback, number of attempts
"""

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, overload

from genloop.config import IndependentConfig
from genloop.distributed import World
from genloop.failures import attempts_of, record_attempt
from genloop.lease import HEARTBEAT, Lease, LeaseLost, read_object
from genloop.planning import record_unit
from genloop.reading import json_object, read_bytes
from genloop.records import Unit
from genloop.rundir import BadInput, RunFailed, json_line, remove, sync_folder, write_atomic, write_new
from genloop.worker_status import WorkerStatus, ending

log = logging.getLogger(__name__)
MAX_UNITS = 1_000_000  # files in one folder
R = TypeVar("R")  # a parsed row
T = TypeVar("T")  # an item


class UnitsFailed(RunFailed):
    """The run is over but some of its units failed."""


class DamagedRows(RunFailed, ValueError):
    """A row file that cannot be read; the message is one line."""


@dataclass(frozen=True)
class Counts:
    """How many units are in which state."""

    total: int
    done: int
    failed: int
    leased: int


def plan_units(num_items: int, unit_size: int) -> list[Unit]:
    """Cut `num_items` into units of `unit_size`; the last may be shorter. Names sort as the units do."""
    starts = range(0, num_items, unit_size)
    if len(starts) > MAX_UNITS:
        raise BadInput(f"unit_size: {num_items} items make {len(starts)} units of {unit_size}, at most {MAX_UNITS} do")
    width = max(5, len(str(len(starts) - 1)))
    return [Unit(f"{i:0{width}d}", start, min(start + unit_size, num_items)) for i, start in enumerate(starts)]


def finished(run: Path) -> set[str]:
    """Names of the units whose row file is in place."""
    return {name for name in _names(run / "rows", ".jsonl") if name.isdecimal()}


def count(run: Path, total: int) -> Counts:
    """The state of all units, from three directory listings."""
    done = finished(run)
    leased = _names(run / "leases", "") - done
    failed = _names(run / "failed", ".json") - done - leased  # a failed unit with a lease is being tried again
    return Counts(total, len(done), len(failed), len(leased))


def unsettled(run: Path) -> int:
    """How many planned units are neither done nor failed; 0 for a run without units."""
    state = count(run, plan_of(run).get("units", 0))
    return max(0, state.total - state.done - state.failed)


def plan_of(run: Path) -> dict[str, Any]:
    """{"units", "items", ...}: how much there is to do; empty where no plan, or a torn one, says so."""
    path = run / "plan.json"
    plan = read_object(path) if path.is_file() else {}
    return plan if all(type(plan.get(key)) is int for key in ("units", "items")) else {}


@overload
def read_rows(run: Path) -> Iterator[dict[str, Any]]: ...
@overload
def read_rows(run: Path, parse: Callable[[bytes], R]) -> Iterator[R]: ...
def read_rows(run: Path, parse: Callable[[bytes], Any] = json_object) -> Iterator[Any]:
    """All rows of the finished units, in unit order; DamagedRows names the line that is none."""
    for name in sorted(finished(run), key=int):
        yield from rows_of_unit(run, name, parse)


def rows_of_units(run: Path, units: Sequence[Unit], parse: Callable[[bytes], R]) -> list[R]:
    """All rows of a finished run; RunFailed names a file that is torn or holds too few of them."""
    found: list[R] = []
    for unit in units:
        path = run / "rows" / f"{unit.name}.jsonl"
        try:
            rows = list(rows_of_unit(run, unit.name, parse))
        except ValueError as error:
            raise RunFailed(f"{error}, or remove the file and run the same command again") from None
        if len(rows) != len(unit):
            raise RunFailed(
                f"{path}: holds {len(rows)} rows, not {len(unit)}; remove it and run the same command again"
            )
        found += rows
    return found


def rows_of_unit(run: Path, name: str, parse: Callable[[bytes], R]) -> Iterator[R]:
    """The rows of one finished unit, each parsed; DamagedRows names a file that cannot be read, or a line that `parse`
    refuses with a ValueError.
    """
    path = run / "rows" / f"{name}.jsonl"
    try:
        lines = read_bytes(path).splitlines()
    except ValueError as error:
        raise DamagedRows(f"{error}; run `verify` on {run}") from None
    except OSError as error:
        raise DamagedRows(f"{path}: unreadable ({error.strerror or 'gone'}); run `verify` on {run}") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = parse(line)
        except ValueError as error:
            raise DamagedRows(f"{path}:{number}: not a row ({error}); run `verify` on {run}") from None
        yield row


class Ledger:
    """One worker's view of the units of a run; a context manager that keeps its lease and its status alive."""

    def __init__(
        self,
        run: Path,
        units: Sequence[Unit],
        world: World,
        *,
        lease_timeout: float = 120.0,
        max_attempts: int = 1,
        retry_failed: bool = False,
        rows_per_item: int = 1,
    ) -> None:
        self.run, self.units, self.world = run, units, world
        self.lease_timeout, self.max_attempts, self.retry_failed = lease_timeout, max_attempts, retry_failed
        self.rows_per_item = rows_per_item
        self._unit: Unit | None = None
        self._lease: Lease | None = None  # that of the unit
        self._written: dict[str, str] = {}  # {file of the unit, below the run folder: sha256}
        self._missed = False  # whether the last claim failed
        self._items = self._in_unit = self._done = 0
        self._status = WorkerStatus(run, world, self.staging)
        self._began, self._began_cpu = time.monotonic(), time.process_time()
        self._closing = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name="ledger-heartbeat", daemon=True)

    @classmethod
    def of(cls, config: IndependentConfig, units: Sequence[Unit], world: World, *, rows_per_item: int = 1) -> "Ledger":
        """The ledger of a job's run folder under its launch settings."""
        settings = {name: getattr(config, name) for name in ("lease_timeout", "max_attempts", "retry_failed")}
        return cls(config.out, units, world, rows_per_item=rows_per_item, **settings)

    def __enter__(self) -> "Ledger":
        for folder in ("rows", "checksums", "leases", "failed", "tmp", "logs"):
            try:
                (self.run / folder).mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise BadInput(f"{self.run / folder}: is no folder; remove it, or use another `out`") from None
        sizes = [[len(list(same)), size] for size, same in groupby(len(u) * self.rows_per_item for u in self.units)]
        items = sum(number * size for number, size in sizes)
        plan = json_line({"units": len(self.units), "items": items, "sizes": sizes})  # sizes: [number of units, items]
        if not (self.run / "plan.json").is_file() or read_bytes(self.run / "plan.json") != plan:
            write_atomic(self.run / "plan.json", plan)
        self._write_status("looking")  # before another worker that gets nothing is the only one that is seen
        self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._closing.set()
        self._beat.join()
        self._release()
        self._write_status(ending(error))
        state = count(self.run, len(self.units))
        if state.done == state.total and not state.leased:
            for folder in (self.staging, self.run / "leases"):
                for leftover in folder.iterdir():  # of workers that were killed
                    remove(leftover)

    @property
    def staging(self) -> Path:
        """Where files of this run are written before they are renamed into place."""
        return self.run / "tmp"

    def claims(self) -> Iterator[Unit]:
        """Units to work on, one at a time; each must be passed to `complete` before the next is asked for.

        An exception inside the loop body belongs to the unit: wrap the body in `working(unit)`. Ends when every unit
        is done, failed or in another worker's hands; raises UnitsFailed when all are settled but some failed.
        """
        while True:
            claimed = 0
            for unit in self._open_units():
                self._missed = not self._claim(unit)
                if self._missed:
                    continue
                claimed += 1
                self.world.check_stop()
                yield unit
                self.world.check_stop()
            if claimed == 0:
                break
        self._raise_if_failed()

    @contextlib.contextmanager
    def working(self, unit: Unit) -> Iterator[None]:
        """Run one unit: an exception is recorded with its attempt count, and raised once the attempts are used up.

        What goes wrong after another worker took the unit over is no failure of it: one line in the log.
        """
        self._began, self._began_cpu = time.monotonic(), time.process_time()
        try:
            yield
        except Exception as error:
            if self._is_lost():
                self._items -= self._in_unit
                self._release()
                log.warning("unit %s was taken over while this worker was suspended; left to the other", unit.name)
                return
            error.add_note(f"rank {self.world.rank}, unit {unit.name} (items {unit.start} to {unit.stop - 1})")
            attempts = self._record_failure(unit, error)
            self._release()
            if attempts >= self.max_attempts:
                raise
            log.warning("unit %s failed, attempt %d of %d: %s", unit.name, attempts, self.max_attempts, error)
        except BaseException:
            self._release()
            raise

    def advance(self, items: int) -> None:
        """Tell the status display that so many more items are through."""
        self._items += items
        self._in_unit += items

    def counted(self, items: Iterable[T]) -> Iterator[T]:
        """The items of a unit one by one: before each a safe point, after each it counts as through."""
        for item in items:
            self.world.check_stop()
            yield item
            self.advance(1)

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the unit that is being worked on, whole or not at all; LeaseLost when it is another's now."""
        self.keep(path, data)
        self.record(path, hashlib.sha256(data).hexdigest())

    def keep(self, path: Path, data: bytes) -> None:
        """The same of a file that saves other units work: it is in no unit's checksums, whoever comes first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, staging=self.staging, ready=self.check_lease)

    def record(self, path: Path, sha256: str) -> None:
        """A file of the unit is in place, by `write` or otherwise: it is in the unit's checksums."""
        self._written[path.relative_to(self.run).as_posix()] = sha256

    def check_lease(self) -> None:
        """LeaseLost when this worker's unit is another's by now; asked before a file that `write` does not write."""
        if self._is_lost():
            raise LeaseLost

    def complete(self, unit: Unit, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put the unit's rows in place, atomically and durably, and give the lease back; LeaseLost as in `write`."""
        data = b"".join(json_line(row) for row in rows)
        sums = self._written | {f"rows/{unit.name}.jsonl": hashlib.sha256(data).hexdigest()}
        text = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))
        write_atomic(self.run / "checksums" / unit.name, text.encode(), staging=self.staging, ready=self.check_lease)
        if not write_new(self.run / "rows" / f"{unit.name}.jsonl", data, staging=self.staging):
            self._release()
            raise LeaseLost
        sync_folder(self.run / "rows")
        remove(self.run / "failed" / f"{unit.name}.json")
        self._release()
        self._done += 1
        took = time.monotonic() - self._began, time.process_time() - self._began_cpu
        record_unit(self.run, self.world.name, unit, *took)

    def _open_units(self) -> Iterator[Unit]:
        """Units that are neither done nor given up, from this rank's part of the run on, so that ranks do not meet.

        After a claim that failed, what others hold is left to a pass that finds nothing else: each such unit costs a
        file server six operations, for every worker that there is.
        """
        first = len(self.units) * self.world.rank // self.world.world_size
        closed, leased, held, got_one = self._settled(), set[str](), [], False
        for unit in (*self.units[first:], *self.units[:first]):
            if unit.name in leased and unit.name not in closed:
                held.append(unit)
            elif unit.name not in closed:
                yield unit
                got_one |= not self._missed
                if self._missed:
                    closed, leased = self._settled(), _names(self.run / "leases", "")
        yield from (unit for unit in held if not got_one and unit.name not in closed)

    def _claim(self, unit: Unit) -> bool:
        lease = Lease(self.run / "leases" / unit.name, self.staging, self.world.name, self.lease_timeout)
        if self._is_done(unit) or not lease.acquire():
            return False
        self._unit, self._lease, self._in_unit, self._written = unit, lease, 0, {}
        given_up = not self.retry_failed and self._has_given_up(unit.name)
        if given_up or self._is_done(unit):  # by another worker, between the listing and the lease
            self._release()
            return False
        return True

    def _is_done(self, unit: Unit) -> bool:
        return (self.run / "rows" / f"{unit.name}.jsonl").exists()

    def _is_lost(self) -> bool:
        return self._lease is None or self._lease.is_lost()

    def _release(self) -> None:
        if self._lease is not None:
            self._lease.release()  # first: a Ctrl-C in between comes here again
        self._unit = self._lease = None

    def _record_failure(self, unit: Unit, error: Exception) -> int:
        try:
            return record_attempt(self.run / "failed" / f"{unit.name}.json", self.world, error)
        except OSError as second:  # above all a full disk: the first error is the one to tell
            error.add_note(f"not recorded: {second.strerror}")
            return self.max_attempts

    def _settled(self) -> set[str]:
        return finished(self.run) | (set() if self.retry_failed else self._given_up())

    def _given_up(self) -> set[str]:
        """The units that have failed as often as they may."""
        failed = _names(self.run / "failed", ".json")
        return failed if self.max_attempts == 1 else {name for name in failed if self._has_given_up(name)}

    def _has_given_up(self, name: str) -> bool:
        """Whether a unit has failed as often as it may."""
        path = self.run / "failed" / f"{name}.json"
        return path.exists() and (self.max_attempts == 1 or attempts_of(path) >= self.max_attempts)

    def _raise_if_failed(self) -> None:
        leased = _names(self.run / "leases", "")  # a failed unit among them is being tried again
        done = finished(self.run)
        names = sorted(self._given_up() - done - leased)
        if names and len(done) + len(names) == len(self.units):
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise UnitsFailed(
                f"{len(names)} of {len(self.units)} units failed ({shown}); reasons are in {self.run / 'failed'}; "
                "run again with retry_failed=true"
            )

    def _keep_alive(self) -> None:
        while not self._closing.wait(HEARTBEAT):
            lease = self._lease
            if lease is not None:
                lease.beat()
            self._write_status("working" if lease else "looking")

    def _write_status(self, state: str) -> None:
        self._status.write(state, unit=self._unit, items=self._items, items_in_unit=self._in_unit, units=self._done)


def _names(folder: Path, suffix: str) -> set[str]:
    try:
        entries = os.listdir(folder)  # noqa: PTH208 - a million names: plain strings, no Path objects
    except FileNotFoundError:
        return set()
    end = len(suffix)
    return {name[: len(name) - end] for name in entries if name.endswith(suffix) and not name.startswith(".")}
