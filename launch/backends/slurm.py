"""Slurm by its programs: submit, look, cancel. Works without accounting; spellings are those of Slurm 20.11 to 25.

Every call has a time limit, and a refusal is Slurm's own message in one line. What neither the queue nor accounting
tells of a task is UNKNOWN, never done; the exit codes that its own script has noted are shown beside that.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genloop.config import ConfigError

CALL_SECONDS = 30.0
MAX_LINES = 20
UNKNOWN = "UNKNOWN"
_VARIABLES = {"array": "ARRAY_INX", "time": "TIMELIMIT", "requeue": "NO_REQUEUE", "no-requeue": "REQUEUE"}  # of sbatch
_OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", UNKNOWN),
}


class SlurmError(ConfigError):
    """A program of Slurm that is not there, gives no answer or refuses; the message is one line."""


@dataclass(frozen=True)
class Task:
    """A job, or one task of an array, as Slurm sees it, and the exit codes of its starts so far."""

    id: str  # 12, or 12_3
    state: str
    reason: str = ""
    nodes: str = ""
    elapsed: str = ""
    exits: tuple[int, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state not in _OVER

    @property
    def line(self) -> str:
        """For a person."""
        parts = [f"job {self.id}: {self.state}" + (f" ({self.reason})" if self.reason else "")]
        parts += [f"on {self.nodes}"] if self.nodes else []
        parts += [f"for {self.elapsed}"] if self.nodes and self.elapsed else []
        codes = ", ".join(map(str, self.exits))
        return " ".join(parts) + (f"; exit codes of its starts: {codes}" if codes else "")


def submit(script: Path) -> str:
    """Hand a script to sbatch -> the job's id. Variables like SBATCH_TIMELIMIT stand for what it leaves open only."""
    options = set(re.findall(r"^#SBATCH --([\w-]+)", script.read_text(encoding="utf-8"), re.M))
    overruled = {f"SBATCH_{_VARIABLES.get(option, option.upper().replace('-', '_'))}" for option in options}
    printed = _call("sbatch", "--parsable", str(script), without=overruled).strip()
    found = printed.splitlines()[-1].partition(";")[0] if printed else ""
    if not found.isdecimal():
        raise SlurmError(f"sbatch: expected the id of a job, found {printed!r}")
    return found


def tasks(job: str, plan: Path) -> list[Task]:
    """A job's tasks as the queue knows them; when it has forgotten the job, as accounting does; else UNKNOWN."""
    exits = _exits(plan)
    found = _queued(job) or _accounted(job)
    missing = [name for name in exits if name not in {task.id for task in found}]
    if missing or not found:
        why = "neither the queue nor accounting knows it"
        found += [Task(name, UNKNOWN, why) for name in missing or [job]]
    found.sort(key=lambda task: [int(part) for part in re.findall(r"\d+", task.id)])
    return [replace(task, exits=exits.get(task.id, ())) for task in found]


def tasks_of(jobs: Sequence[str], plan: Path) -> list[Task]:
    """The tasks of several jobs."""
    return [task for job in jobs for task in tasks(job, plan)]


def task_lines(found: Sequence[Task]) -> list[str]:
    """A line for each task; of a large array one for each state, with the number of its tasks."""
    if len(found) <= MAX_LINES:
        return [task.line for task in found]
    alike = Counter((task.state, task.reason) for task in found)
    return [
        f"{number} tasks: {state}" + (f" ({reason})" if reason else "") for (state, reason), number in alike.items()
    ]


def cancel(jobs: Sequence[str]) -> None:
    """scancel: running tasks are asked to stop, then ended."""
    _call("scancel", *jobs)


def _queued(job: str) -> list[Task]:
    try:
        printed = _call("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r|%N|%M")
    except SlurmError as error:
        if "Invalid job id" in str(error):  # ended long ago
            return []
        raise
    rows = [line.strip().split("|") for line in printed.splitlines() if line.count("|") == 4]
    return [Task(i, state, "" if reason == "None" else reason, nodes, time) for i, state, reason, nodes, time in rows]


def _accounted(job: str) -> list[Task]:
    """Accounting lags behind the queue: a task that it still takes to live is one of which it does not know the end."""
    try:
        printed = _call("sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={job}", "--format=JobID,State")
    except SlurmError:
        return []
    rows = [line.split("|") for line in printed.splitlines() if line.count("|") == 1]
    told = [Task(name, (state.split() or [UNKNOWN])[0]) for name, state in rows]
    return [Task(t.id, UNKNOWN, f"accounting still says {t.state}") if t.is_live else t for t in told]


def _exits(plan: Path) -> dict[str, tuple[int, ...]]:
    """{task: exit codes of its starts, in order}, from PLAN/TASK.ATTEMPT.exit."""
    found: dict[str, dict[int, int]] = {}
    for file in plan.glob("*.exit"):
        name, _, attempt = file.stem.rpartition(".")
        text = file.read_text(encoding="utf-8").strip()
        if attempt.isdecimal() and text.isdecimal():  # else torn
            found.setdefault(name, {})[int(attempt)] = int(text)
    return {name: tuple(codes[attempt] for attempt in sorted(codes)) for name, codes in sorted(found.items())}


def _call(program: str, *arguments: str, without: Collection[str] = ()) -> str:
    """Standard output of a program of Slurm; SlurmError otherwise."""
    # An allocation around this process is not to be inherited by what is submitted from within.
    hidden = {name for name in os.environ if name.startswith("SLURM_")} - {"SLURM_CONF"} | set(without)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CALL_SECONDS,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise SlurmError(f"{program} is not to be found; is this a machine of the cluster?") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{program} gave no answer within {CALL_SECONDS:.0f} s; does the controller run?") from None
    if done.returncode != 0:
        raise SlurmError(f"{program}: {'; '.join(_messages(done.stderr)) or f'exit code {done.returncode}'}")
    return done.stdout


def _messages(text: str) -> Iterator[str]:
    """What Slurm's programs say, without their own names in front, each thing once."""
    seen = set()
    for line in text.splitlines():
        said = line.strip()
        for start in ("sbatch:", "squeue:", "scancel:", "scontrol:", "sacct:", "error:", "fatal:"):
            said = said.removeprefix(start).strip()
        if said and said not in seen:
            seen.add(said)
            yield said
