"""Workers on this machine, one of several that work on a run or the only one: start N, watch them, stop them together.

Workers of an independent job are plain processes that share the run folder; those of a collective job are started by
torchrun. The first failure stops all, and so does a worker that reaches no safe point for too long, after the stacks of
all have been written to their logs. SIGINT, SIGTERM, SIGUSR2 and SIGHUP are passed on as a request to stop cleanly.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from genloop import terminal
from genloop.distributed import STOPPING, end_with_parent
from genloop.environment import imports_alike
from genloop.lease import living
from genloop.ledger import unsettled
from launch.backends.worker import beat_file, log_file, output_file
from launch.watch.progress import shown
from launch.watch.worklog import explain

FAILED, BAD_INPUT, STOPPED = 1, 2, 75
GRACE = 4.0  # seconds that the others get to stop after one has failed
STOP_GRACE = 60.0  # seconds that all get to stop cleanly when asked to
# Asks a torchrun agent to stop. Schedulers send SIGTERM or SIGUSR2 to every process of a job, and an agent that is told
# twice ends at once, and its workers with it.
AGENT_STOP = signal.SIGQUIT
POLL = 0.05
HANG_LOOK = 1.0  # seconds between two looks at the signs of life
DUMP_SECONDS = 1.0  # for the stacks to be written


@dataclass
class Child:
    """A process that this one started: a worker, or the torchrun agent of all workers."""

    process: subprocess.Popen[bytes]
    rank: int | None  # None for an agent
    log: Path
    first_rank: int = 0  # of this machine's workers

    def exit(self) -> tuple[int | None, int | None]:
        """(exit code, rank) of the process, for an agent of the worker that failed first; code None while it runs."""
        code = self.process.poll()
        if not code or self.rank is not None:
            return code, self.rank
        first = re.search(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)", _text(self.log))
        return (int(first[1]), self.first_rank + int(first[2])) if first else (code, None)

    def has_failed(self) -> bool:
        """Whether it has failed, or is an agent that is stopping the workers beside a failed one."""
        code, _ = self.exit()
        if code is None:
            return self.rank is None and "closing signal" in _text(self.log)
        return code not in {0, STOPPED}


@dataclass
class StopRequests:
    """How often this process was asked to stop."""

    count: int = 0

    def receive(self, *_: object) -> None:
        """Signal handler."""
        self.count += 1


@dataclass(frozen=True)
class Workers:
    """N workers of one job on one run folder; `words` are those after the module name.

    On `nodes` machines each has its launcher, its `node_rank`, and the same `endpoint` HOST:PORT, where the first one
    listens for the workers of a collective job. `hang_timeout`: seconds without a safe point; 0: never mind.
    """

    module: str
    words: Sequence[str]
    procs: int
    run: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    node_rank: int = 0
    endpoint: str = ""
    hang_timeout: float = 0.0

    @property
    def logs(self) -> Path:
        """Where the output of the workers goes."""
        return self.run / "logs"

    @property
    def ranks(self) -> range:
        """Those of this machine."""
        return range(self.node_rank * self.procs, (self.node_rank + 1) * self.procs)

    def command(self, kind: str, rank: int | None = None) -> tuple[dict[str, str], list[str]]:
        """Variables and command line of a worker, or of the torchrun agent of all workers of a collective job."""
        worker = ["-m", "launch.backends.worker", str(self.logs), self.module, *self.words]
        if kind == "independent":
            local = 0 if rank is None else rank - self.ranks[0]
            ranks = {"RANK": str(rank or 0), "WORLD_SIZE": str(self.procs * self.nodes), "LOCAL_RANK": str(local)}
            return ranks, [sys.executable, *worker]
        agent = ["-m", "torch.distributed.run", f"--nproc-per-node={self.procs}"]
        stop = [f"--signals-to-handle=SIGINT,SIGHUP,{AGENT_STOP.name}", f"--shutdown-timeout={STOP_GRACE:.0f}"]
        if self.nodes == 1:
            return {}, [sys.executable, *agent, "--standalone", *stop, *worker]
        agent += [f"--nnodes={self.nodes}", f"--node-rank={self.node_rank}"]
        agent += ["--rdzv-backend=static", f"--rdzv-endpoint={self.endpoint}"]
        return {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}, [sys.executable, *agent, *stop, *worker]

    def start_independent(self) -> Iterator[Child]:
        """N processes that know their rank from the environment."""
        for rank in self.ranks:
            process = self._start(*self.command("independent", rank), output=None, before=None)
            yield Child(process, rank, log_file(self.logs, rank))

    def start_collective(self) -> Iterator[Child]:
        """One torchrun agent with N workers, which ends them when this process is gone."""
        log = self.logs / ("torchrun.log" if self.nodes == 1 else f"torchrun-{self.node_rank}.log")
        with open(log, "wb") as output:
            variables, command = self.command("collective")
            process = self._start(variables, command, output=output.fileno(), before=_become_agent)
            yield Child(process, None, log, self.ranks[0])

    def _start(
        self,
        variables: Mapping[str, str],
        command: Sequence[str],
        *,
        output: int | None,
        before: Callable[[], None] | None,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"OMP_NUM_THREADS": "1", **os.environ, **imports_alike(), **self.environment, **variables},
            process_group=0,  # a terminal's Ctrl-C reaches the launcher only, which passes it on
            preexec_fn=before,
        )


def run_workers(workers: Workers, kind: str) -> int:
    """Start all workers of a job of this KIND and wait for them -> exit code of the whole."""
    workers.logs.mkdir(parents=True, exist_ok=True)
    began = time.time()
    starts = {rank: len(_text(log_file(workers.logs, rank))) for rank in workers.ranks}
    for rank in starts:
        output_file(workers.logs, rank).unlink(missing_ok=True)
        beat_file(workers.logs, rank).unlink(missing_ok=True)
    start = {"independent": workers.start_independent, "collective": workers.start_collective}[kind]
    children: list[Child] = []
    with stop_requests() as requests:
        try:
            for child in start():
                children.append(child)
            with shown(workers.run):
                seen: dict[int, tuple[float, float]] = {}
                code, culprit = supervise(children, requests, lambda: hung_workers(workers, seen))
        finally:
            for child in children:
                if child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()
    _print_output(workers.logs, list(starts))
    news = {rank: _text(log_file(workers.logs, rank))[start:] for rank, start in starts.items()}
    if code == STOPPED and any("genloop: failed:" in text for text in news.values()):
        code = FAILED
    # The other nodes answer for theirs.
    others = living(workers.run / "leases", workers.run / "tmp") if workers.nodes > 1 else 0
    if code == 0 and unsettled(workers.run) > others:  # in the hands of workers elsewhere
        code = STOPPED
    if code not in {0, STOPPED}:
        terminal.err(explain(workers.logs, news, began, *(culprit.exit() if culprit else (None, None))))
    return code


def hung_workers(workers: Workers, seen: dict[int, tuple[float, float]]) -> str:
    """ "" while all move; else which stood still first. The stacks of all are in their logs when this returns.

    `seen` keeps by rank the time that its beat file had, by the clock of the file server, and since when, by this one.
    """
    if not workers.hang_timeout:
        return ""
    now, silent = time.monotonic(), dict[int, float]()
    for rank in workers.ranks:
        with suppress(FileNotFoundError):  # not started yet, or over
            beat = beat_file(workers.logs, rank).stat().st_mtime
            seen[rank] = seen[rank] if rank in seen and seen[rank][0] == beat else (beat, now)
            silent[rank] = now - seen[rank][1]
    if not silent or max(silent.values()) < workers.hang_timeout:
        return ""
    for rank in silent:
        with suppress(ValueError, ProcessLookupError):
            os.kill(int(_text(beat_file(workers.logs, rank))), signal.SIGUSR1)
    time.sleep(DUMP_SECONDS)
    first = max(silent, key=lambda rank: silent[rank])
    return f"worker {first} hangs: no safe point for {silent[first]:.0f} s; the stacks of all workers are in their logs"


def supervise(
    children: Sequence[Child], requests: StopRequests, hung: Callable[[], str] = lambda: ""
) -> tuple[int, Child | None]:
    """Wait for all; the first failure ends the others -> exit code of the whole, and who failed first."""
    culprit: Child | None = None
    deadline = float("inf")
    seen = 0
    looked = time.monotonic()
    while any(child.process.poll() is None for child in children):
        if time.monotonic() - looked > HANG_LOOK:
            looked = time.monotonic()
            if standing := hung():
                terminal.err(f"genloop: {standing}")
                _signal(children, signal.SIGKILL)
        if culprit is None and requests.count == 0:  # a signal may reach the workers as soon as this process
            culprit = next((child for child in children if child.has_failed()), None)
            if culprit is not None:  # an agent is ending its workers already
                _ask_to_stop(child for child in children if child is not culprit)
                deadline = time.monotonic() + GRACE
        if (count := requests.count) > seen:  # once: another may come while the first is answered
            if seen:
                _signal(children, signal.SIGKILL)
            else:
                terminal.err(STOPPING)
                _ask_to_stop(children)
            seen, deadline = count, min(deadline, time.monotonic() + STOP_GRACE)
        if time.monotonic() > deadline:
            _signal(children, signal.SIGKILL)
        time.sleep(POLL)
    if culprit is None and requests.count == 0:
        culprit = next((child for child in children if child.has_failed()), None)
    if culprit is not None:
        return BAD_INPUT if culprit.exit()[0] == BAD_INPUT else FAILED, culprit
    return STOPPED if requests.count or any(child.exit()[0] == STOPPED for child in children) else 0, None


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Count requests to stop while the body runs; what was ignored before, as SIGHUP below nohup, still is."""
    requests = StopRequests()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, requests.receive) for number in heard}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_to_stop(children: Iterable[Child]) -> None:
    for child in children:
        _signal([child], AGENT_STOP if child.rank is None else signal.SIGTERM)


def _signal(children: Iterable[Child], number: int) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.send_signal(number)


def _print_output(logs: Path, ranks: Sequence[int]) -> None:
    """What the workers printed, in rank order; what several printed alike, once."""
    texts = [_text(output_file(logs, rank)) for rank in ranks]
    if said := "".join(dict.fromkeys(texts)):
        terminal.out(said)
    for rank in ranks:
        output_file(logs, rank).unlink(missing_ok=True)


def _become_agent() -> None:
    """Runs in the new process: it listens to its parent alone, and stops when that is gone."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(AGENT_STOP)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
