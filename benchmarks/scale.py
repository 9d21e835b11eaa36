"""1 to 1,024 simulated workers on the real ledger: makespan against the ideal, and what the file server has to bear.

    python benchmarks/scale.py                              prints benchmarks/scale.md
    python benchmarks/scale.py --workers 64 --seconds 5

Every worker is a Ledger with real files in one run folder; time is simulated. A unit takes `--seconds`, give or take a
fifth, and each operation on a name or on the disk of the file server `--latency` milliseconds, which are counted as
they happen. The walk of a worker to its next unit happens at one moment of the others. Heartbeats are counted apart:
one of a real lease and status, each second.
"""

import argparse
import builtins
import functools
import heapq
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop import lease
from genloop.distributed import World
from genloop.lease import HEARTBEAT
from genloop.ledger import Ledger, finished, plan_units

COUNTED = ("open", "stat", "link", "rename", "replace", "unlink", "utime", "listdir", "mkdir", "fsync")


class Operations:
    """How many operations on files below `root` were done."""

    def __init__(self, root: Path) -> None:
        self.number, self._root = 0, str(root)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While the body runs; what is opened by number (fsync) lies below the root here."""
        kept = {name: getattr(os, name) for name in COUNTED}
        opened = builtins.open
        try:
            for name, call in kept.items():
                setattr(os, name, self._counting(call))
            builtins.open = self._counting(opened)
            yield
        finally:
            builtins.open = opened
            for name, call in kept.items():
                setattr(os, name, call)

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(target: Any, *rest: Any, **more: Any) -> Any:
            self.number += isinstance(target, int) or os.fspath(target).startswith(self._root)
            return call(target, *rest, **more)

        return counting


@dataclass
class Result:
    """What a simulated run came to; times in seconds."""

    workers: int
    units: int
    makespan: float
    ideal: float
    operations: int
    beat: int  # operations of one heartbeat

    def row(self) -> str:
        """A row of the table."""
        over = 100 * (self.makespan / self.ideal - 1)
        rate = self.operations / self.makespan
        beats = self.workers * self.beat / HEARTBEAT
        return (
            f"| {self.workers:,} | {self.units:,} | {self.makespan:,.0f} | {over:.1f} % | "
            f"{self.operations / self.units:.0f} | {rate:,.0f} | {beats:,.0f} |"
        )


def simulate(run: Path, workers: int, units: int, *, seconds: float, latency: float, seed: int = 0) -> Result:
    """A run of `units` by `workers`, all of which begin at the same moment; `latency` in seconds."""
    plan, chance, operations = plan_units(units, 1), random.Random(seed), Operations(run)
    times = [seconds * chance.uniform(0.8, 1.2) for _ in plan]
    ledgers, beat = [], 0
    lease._process = functools.cache(lease._process)  # of this one process, which lives as long as the simulation
    with operations.counted():
        for rank in range(workers):
            ledger = Ledger(run, plan, World(rank, workers), lease_timeout=1e9)
            ledger._beat = threading.Thread(target=int)  # time is not the real one
            ledgers.append(ledger.__enter__())
        walks = [ledger.claims() for ledger in ledgers]
        queue = [(0.0, rank) for rank in range(workers)]
        operations.number, makespan = 0, 0.0
        while queue:
            now, rank = heapq.heappop(queue)
            before, ledger = operations.number, ledgers[rank]
            if ledger._unit is not None:
                ledger.complete(ledger._unit, [{"item": ledger._unit.start}])
                makespan = max(makespan, now + latency * (operations.number - before))
            unit = next(walks[rank], None)
            spent = latency * (operations.number - before)
            if unit is not None:
                heapq.heappush(queue, (now + spent + times[unit.start], rank))
                if not beat:
                    count = operations.number
                    ledger._lease.beat()
                    ledger._write_status("working")
                    beat, operations.number = operations.number - count, count
    assert len(finished(run)) == units
    return Result(workers, units, makespan, sum(times) / workers, operations.number, beat)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 256, 1024])
    options.add_argument("--units", type=int, default=30, help="of each worker, on average; ten times that of up to 8")
    options.add_argument("--seconds", type=float, default=60.0, help="that a unit takes")
    options.add_argument("--latency", type=float, default=0.5, help="milliseconds of an operation")
    choice = options.parse_args()
    print("| workers | units | makespan, s | above ideal | operations a unit | a second | heartbeats a second |")
    print("|---|---|---|---|---|---|---|")
    for workers in choice.workers:
        units = choice.units * workers * (10 if workers <= 8 else 1)
        with tempfile.TemporaryDirectory(prefix="genloop-scale-") as folder:
            began = time.monotonic()
            found = simulate(Path(folder), workers, units, seconds=choice.seconds, latency=choice.latency / 1000)
            print(found.row(), flush=True)
            print(f"{workers} workers took {time.monotonic() - began:.0f} s to simulate", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
