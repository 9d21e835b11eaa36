"""The faults of benchmarks/faults.py: each disturbs a run of a job, which is then resumed and compared.

A fault is a function of a `Trial`. It starts workers or launchers, does its damage at a moment that the trial's own
random numbers choose, and checks how those processes end. What it leaves, `Trial.resume` has to mend.
"""

import json
import os
import resource
import shutil
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.fault_trial import LIMIT, Broken, Trial, ended, keep, remount, small_disk
from tests.runs import start, workers_of

HOUR = 3600.0
WORKED, STOPPED = {0}, {0, 75}


def kill_worker(trial: Trial) -> None:
    """SIGKILL to one of two workers, sometimes again."""
    for _ in range(trial.chance.randint(1, 2)):
        trial.interrupted()


def stop_cleanly(trial: Trial) -> None:
    """SIGTERM to a worker: it ends by 75 and gives its lease back."""
    worker = trial.worker()
    trial.moment(worker, [*trial.subject.signs, "logs/starts.jsonl"])
    worker.send_signal(signal.SIGTERM)
    code, _ = ended(worker, {*STOPPED, -signal.SIGTERM})  # before the job has begun the signal ends it at once
    if code >= 0 and trial.locks():
        raise Broken("lease: left by a worker that stopped cleanly")


def suspend_worker(trial: Trial) -> None:
    """SIGSTOP until its lease has run out and another worker has done the rest; then it wakes up."""
    worker = trial.worker()
    trial.moment(worker, ["leases/*", "training.lock"])
    worker.send_signal(signal.SIGSTOP)
    for lock in trial.locks():
        os.utime(lock, (time.time() - HOUR, time.time() - HOUR))
    other = trial.worker()
    ended(other, STOPPED)
    worker.send_signal(signal.SIGCONT)
    ended(worker, {0, 1} if trial.subject.trains else STOPPED)


def kill_launcher(trial: Trial) -> None:
    """SIGKILL to the launcher of two workers, which end with it."""
    launcher = trial.launcher()
    trial.moment(launcher)
    launcher.kill()
    launcher.wait(LIMIT)
    limit = time.monotonic() + LIMIT
    while workers_of(trial.run):
        if time.monotonic() > limit:
            raise Broken("hang: workers outlive their launcher")
        time.sleep(0.05)


def stop_launcher(trial: Trial) -> None:
    """SIGTERM to the launcher: all end cleanly."""
    launcher = trial.launcher()
    trial.moment(launcher, [*trial.subject.signs, "logs/worker-*"])
    launcher.send_signal(signal.SIGTERM)
    ended(launcher, {*STOPPED, 1} if trial.subject.trains else STOPPED)  # torchrun reports a rank still starting


def suspend_launcher(trial: Trial) -> None:
    """SIGSTOP and SIGCONT to the launcher alone: its workers go on."""
    launcher = trial.launcher()
    trial.moment(launcher)
    launcher.send_signal(signal.SIGSTOP)
    time.sleep(trial.chance.uniform(0, 2))
    launcher.send_signal(signal.SIGCONT)
    ended(launcher, WORKED)


def kill_launched(trial: Trial) -> None:
    """SIGKILL to one of a launcher's workers: the launcher fails and ends the other."""
    launcher = trial.launcher()
    trial.moment(launcher)
    found = workers_of(trial.run)
    if found:
        with suppress(ProcessLookupError):
            os.kill(trial.chance.choice(found), signal.SIGKILL)
    ended(launcher, {0, 1})


def two_launchers(trial: Trial) -> None:
    """Two start at nearly the same moment: units are shared, of two trainings one is refused."""
    workers = [trial.worker()]
    time.sleep(trial.chance.choice([0, 0.05, 0.3]))
    workers.append(trial.worker())
    for worker in workers:
        ended(worker, {0, 2} if trial.subject.trains else STOPPED)


def two_real_launchers(trial: Trial) -> None:
    """The same by `genloop run --procs 2`."""
    launchers = [trial.launcher(), trial.launcher()]
    for launcher in launchers:
        ended(launcher, {0, 2} if trial.subject.trains else STOPPED)


def full_of_bytes(trial: Trial) -> None:
    """A disk without room: the worker fails; after something is deleted the run goes on."""
    with small_disk(trial):
        worker = trial.worker()
        trial.moment(worker, [*trial.subject.signs, "run.json"])
        free = shutil.disk_usage(trial.place).free - 4096 * trial.chance.randrange(12)
        ballast = trial.place / "ballast"
        with open(ballast, "wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(free, 1))
        ended(worker, {0, 1, 2})
        ballast.unlink()
        trial.resume()
        keep(trial)


def full_of_files(trial: Trial) -> None:
    """A disk without inodes."""
    with small_disk(trial):
        worker = trial.worker()
        trial.moment(worker, [*trial.subject.signs, "run.json"])
        ballast = trial.place / "ballast"
        with suppress(OSError):
            ballast.mkdir()
            for number in range(10_000):
                (ballast / str(number)).touch()
        for path in sorted(ballast.glob("*"))[: trial.chance.randrange(8)]:
            path.unlink()
        ended(worker, {0, 1, 2})
        shutil.rmtree(ballast, ignore_errors=True)
        trial.resume()
        keep(trial)


def read_only(trial: Trial) -> None:
    """The file system turns read-only, as after an error of its disk, and is mounted anew."""
    with small_disk(trial):
        worker = trial.worker()
        trial.moment(worker, [*trial.subject.signs, "run.json"])
        while remount(trial.place, "ro") and worker.poll() is None:  # busy while a file is being written
            time.sleep(0.001)
        ended(worker, {0, 1, 2})
        remount(trial.place, "rw")
        trial.resume()
        keep(trial)


def limited_files(trial: Trial) -> None:
    """RLIMIT_FSIZE on a running worker: a write stops half-way."""
    worker = trial.worker()
    trial.moment(worker)
    size = trial.chance.choice([0, 100, 1000, 10_000])
    with suppress(ProcessLookupError):
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, size))
    ended(worker, {0, 1, 2})


def torn_row(trial: Trial) -> None:
    """A torn row file: `verify` finds it, and the unit is done again when it is removed; a torn metrics line."""
    if trial.subject.trains:
        trial.interrupted(["metrics.jsonl"])
        path, saved = trial.some("metrics.jsonl"), sorted(trial.run.glob("checkpoints/step-*"))
        lines = path.read_bytes().splitlines(keepends=True) if path else []
        step = int(saved[-1].name.removeprefix("step-")) if saved else 0
        if path and lines and json.loads(lines[-1])["step"] > step:  # what a checkpoint counts on is on the disk
            path.write_bytes(b"".join(lines)[: -trial.chance.randint(1, 30)])
        return
    trial.interrupted(["rows/*.jsonl"])
    path = trial.some("rows/*.jsonl")
    if path is None:
        return
    before = path.read_bytes()
    trial.tear(path)
    if path.read_bytes() != before:
        ended(start("verify", "tiny", f"run={trial.run}", f"out={trial.place / 'verified'}"), {1})
    path.unlink()


def torn_input(trial: Trial) -> None:
    """A shard, image or prompt file is cut: refused before work; when it is mended the run goes on."""
    key, source = trial.subject.input
    copy = trial.place / source.name
    (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    trial.more.append(f"{key}={copy}")
    trial.interrupted()
    files = sorted(path for path in ([copy] if copy.is_file() else copy.rglob("*")) if path.suffix in CUT)
    path = trial.chance.choice(files)
    before = path.read_bytes()
    path.write_bytes(before[: trial.chance.randrange(len(before))])
    ended(trial.worker(), {2})
    path.write_bytes(before)


CUT = {".tar", ".png", ".txt", ".jsonl"}


def torn_lease(trial: Trial) -> None:
    """A lease or lock that a crash of the machine has torn."""
    trial.interrupted(["leases/*", "training.lock"])
    if trial.locks():
        path = trial.chance.choice(trial.locks())
        trial.tear(path)
        os.utime(path, (time.time() - 60, time.time() - 60))


def torn_record(trial: Trial) -> None:
    """A torn checkpoint, plan, status, checksum of an open unit, log or metrics file."""
    trial.interrupted(["checkpoints/step-*", "rows/*.jsonl"])
    newest = sorted(trial.run.glob("checkpoints/step-*"))[-1:]
    if newest and trial.chance.random() < 0.8:
        path = trial.some(f"checkpoints/{newest[0].name}/*")
    else:
        path = trial.some("plan.json", "logs/*", "tmp/*", "env.json", "failed/*", "canary.json")
    if path:
        trial.tear(path)


def clock_jump(trial: Trial) -> None:
    """The clock jumps by hours or days, forward or back: every file of the run has a time that is far off."""
    trial.interrupted()
    shift = trial.chance.choice([-1, 1]) * trial.chance.choice([HOUR, 24 * HOUR, 1e8])
    foreign(trial, trial.chance.random() < 0.5)
    for path in trial.run.rglob("*"):
        state = path.lstat()
        os.utime(path, (state.st_atime + shift, state.st_mtime + shift))


def stale_leases(trial: Trial) -> None:
    """Leases of workers that are no more: of another machine, of a number that another process has now."""
    trial.interrupted(["leases/*", "training.lock"])
    foreign(trial, trial.chance.random() < 0.5)
    for path in trial.locks():
        os.utime(path, (time.time() - HOUR, time.time() - HOUR))


def late_rename(trial: Trial) -> None:
    """What another machine has renamed into place is seen late: in the middle of the next worker's work."""
    trial.interrupted(["checkpoints/step-*", "rows/*.jsonl"])
    found = sorted([*trial.run.glob("checkpoints/step-*"), *trial.run.glob("rows/*.jsonl")])
    if not found:
        return
    path, aside = found[-1], trial.place / uuid.uuid4().hex
    path.rename(aside)
    worker = trial.worker()
    trial.moment(worker)
    with suppress(OSError):  # made anew meanwhile
        if aside.is_dir():
            aside.rename(path)
        else:
            os.link(aside, path)
    ended(worker, STOPPED)


def foreign(trial: Trial, elsewhere: bool) -> None:
    """Let the leases name another machine, or the number of this very process."""
    for path in trial.locks():
        with suppress(ValueError):
            lease = json.loads(path.read_text())
            lease |= {"host": "elsewhere", "boot": "another"} if elsewhere else {"pid": os.getpid()}
            path.write_text(json.dumps(lease) + "\n")


@dataclass(frozen=True)
class Fault:
    """A kind of fault, its share of the trials, and whether it mounts a file system, which takes root."""

    apply: Callable[[Trial], None]
    share: int = 4
    mounts: bool = False


FAULTS = {
    "SIGKILL of workers": Fault(kill_worker, 8),
    "SIGTERM of a worker": Fault(stop_cleanly),
    "SIGSTOP beyond the lease": Fault(suspend_worker),
    "SIGKILL of a launcher": Fault(kill_launcher, 1),
    "SIGTERM of a launcher": Fault(stop_launcher, 1),
    "SIGSTOP of a launcher": Fault(suspend_launcher, 1),
    "SIGKILL of a launcher's worker": Fault(kill_launched, 1),
    "two workers of their own": Fault(two_launchers),
    "two launchers": Fault(two_real_launchers, 1),
    "disk full, bytes": Fault(full_of_bytes, mounts=True),
    "disk full, inodes": Fault(full_of_files, mounts=True),
    "file system read-only": Fault(read_only, mounts=True),
    "write cut by a limit": Fault(limited_files),
    "torn row": Fault(torn_row),
    "torn shard or other input": Fault(torn_input),
    "torn lease": Fault(torn_lease),
    "torn checkpoint or record": Fault(torn_record),
    "clock jump": Fault(clock_jump),
    "stale leases": Fault(stale_leases),
    "rename seen late": Fault(late_rename),
}
