"""One trial of benchmarks/faults.py: a job on a run folder of its own, how its processes start and have to end."""

import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import Worker
from tests.runs import run_ranks, start

LIMIT = 120.0  # seconds after which a process is taken to hang


class Broken(AssertionError):
    """What a fault has broken; the first word is the outcome in the table."""


@dataclass(frozen=True)
class Subject:
    """A tiny job: its words, the files whose appearance is a moment for a fault, what has to be the same afterwards."""

    job: str
    words: Sequence[str]
    signs: Sequence[str]
    compared: Sequence[str]
    input: tuple[str, Path]  # (key, file or folder) of what it reads, which a fault may tear
    share: int = 3  # of the trials

    @property
    def trains(self) -> bool:
        """Whether it is a collective job, with checkpoints in place of units."""
        return self.job.startswith("train")


@dataclass
class Trial:
    """One fault on one run: `place` is its folder, `chance` its random numbers."""

    subject: Subject
    place: Path
    chance: random.Random
    procs: int = 1
    more: list[str] = field(default_factory=list)  # words
    pool: list[Worker] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.place / "run"

    @property
    def words(self) -> list[str]:
        """Preset and key=value."""
        return [*self.subject.words, f"out={self.run}", *self.more]

    def worker(self) -> Worker:
        """One worker, forked."""
        self.pool.append(start(self.subject.job, *self.words))
        return self.pool[-1]

    def launcher(self) -> Worker:
        """`genloop run` with two workers."""
        self.procs = 2
        self.pool.append(Worker("launch.cli", ["run", self.subject.job, *self.words, "--procs", "2"]))
        return self.pool[-1]

    def resume(self) -> None:
        """The same command until it is done, at most four times; a file that has to be removed first it names."""
        code, errors = 0, ""
        words = [] if self.subject.trains else ["retry_failed=true"]
        for _ in range(4):
            if self.subject.trains and self.procs > 1:
                run_ranks(self.subject.job, *self.words, world_size=self.procs, timeout=LIMIT)
                return
            code, errors = ended(start(self.subject.job, *self.words, *words), {0, 1, 75})
            if code == 0:
                return
            if named := re.search(r"(/[^\s:]+):.*remove (it|the file) and run the same command again", errors):
                Path(named[1]).unlink()
        raise Broken(f"stuck: exit {code} again and again: {errors[-300:]}")

    def moment(self, process: Worker, signs: Sequence[str] = ()) -> None:
        """Wait: for a file like one of the subject's signs, or just some time; return at once when the process ends."""
        sign = self.chance.choice([*(signs or self.subject.signs), *([] if signs else [""])])
        limit = time.monotonic() + (LIMIT if sign else self.chance.uniform(0, 1.0))
        while process.poll() is None and time.monotonic() < limit and not (sign and any(self.run.glob(sign))):
            time.sleep(0.002)
        time.sleep(self.chance.choice([0, 0, 0.01, 0.1]) * self.chance.random())

    def some(self, *patterns: str) -> Path | None:
        """One of the files of the run like these."""
        found = sorted(path for pattern in patterns for path in self.run.glob(pattern) if path.is_file())
        return self.chance.choice(found) if found else None

    def interrupted(self, signs: Sequence[str] = ()) -> None:
        """Run a worker and kill it at a moment."""
        worker = self.worker()
        self.moment(worker, signs)
        worker.kill()
        worker.wait(LIMIT)

    def tear(self, path: Path) -> None:
        """Cut a file somewhere, or leave noise in its place."""
        data = path.read_bytes()
        cut = self.chance.randrange(len(data)) if data else 0
        path.write_bytes(self.chance.choice([data[:cut], b"", self.chance.randbytes(40), data[:cut] + bytes(20)]))

    def locks(self) -> list[Path]:
        """The leases of its units, or the lock of a training."""
        return [path for path in (*self.run.glob("leases/*"), self.run / "training.lock") if path.is_file()]


def ended(process: Worker, codes: set[int]) -> tuple[int, str]:
    """Wait for a process -> its exit code, what it said; Broken when it hangs or ends otherwise."""
    try:
        _, errors = process.communicate(LIMIT)
    except AssertionError as error:
        raise Broken(f"hang: {error}") from None
    code = process.returncode
    if code not in codes:
        raise Broken(f"exit: {code} instead of {sorted(codes)}: {errors[-1500:]}")
    assert code is not None
    return code, errors


@contextmanager
def small_disk(trial: Trial) -> Iterator[None]:
    """A file system of 96 MiB and 700 files around the body, in the place of the trial's folder."""
    options = "size=96m,nr_inodes=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, socket.gethostname(), trial.place], check=True)
    try:
        yield
    finally:
        for worker in trial.pool:
            worker.kill()
            worker.wait()
        subprocess.run(["umount", "--lazy", trial.place], check=True)


def keep(trial: Trial) -> None:
    """Copy the run to where it is looked at after its small disk is gone."""
    shutil.copytree(trial.run, trial.place.with_name(f"{trial.place.name}-kept") / "run")


def remount(place: Path, how: str) -> int:
    """-> 0 when that was possible."""
    return subprocess.run(["mount", "-o", f"remount,{how}", place], stderr=subprocess.DEVNULL).returncode
