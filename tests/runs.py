"""What tests of whole runs share: starting workers, comparing run folders by their bytes, what a refusal is."""

import hashlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from genloop.job import run_command
from tests.processes import ROOT, Worker

if TYPE_CHECKING:
    import pytest

COMPARED = ("rows", "images")


def start(job: str, *words: str, rank: int = 0, world_size: int = 1, **environment: str) -> Worker:
    """One worker of a job, by its name or its dotted path, as its own process."""
    place = {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    return Worker(job if "." in job else f"jobs.{job}", words, place | environment)


def run_ranks(job: str, *words: str, world_size: int = 2, timeout: float = 300) -> list[Worker]:
    """All ranks of a collective job, to their ends, as torchrun would start them; fails unless all exit with 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [start(job, *words, rank=rank, world_size=world_size, **meeting) for rank in range(world_size)]
    said = [rank.communicate(timeout) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world_size, said
    return ranks


def genloop(*words: str, timeout: float = 300, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command, to its end."""
    command = Worker("launch.cli", words, environment)
    out, error = command.communicate(timeout)
    assert command.returncode is not None
    return subprocess.CompletedProcess(["genloop", *words], command.returncode, out, error)


def launch(*words: str) -> "subprocess.Popen[str]":
    """`genloop run` in the background."""
    return start_command("run", *words)


def start_command(*words: str) -> "subprocess.Popen[str]":
    """The command in the background."""
    command = [sys.executable, "-m", "launch", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_until(what: Callable[[], object], seconds: float = 300) -> None:
    """Look again until `what()` holds; fail after a generous time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def workers_of(run: Path) -> list[int]:
    """Process ids of the living workers of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue  # ended meanwhile
        is_worker = b"launch.backends.worker" in words and b"torch.distributed.run" not in words
        if is_worker and f"{run}/logs".encode() in words:
            found.append(int(entry.name))
    return found


def refusal(module: ModuleType, words: Sequence[str], place: Path, capsys: "pytest.CaptureFixture[str]") -> str:
    """The one line of a job that is refused with exit code 2 and leaves `place` as it was."""
    before = sorted(place.rglob("*"))
    capsys.readouterr()  # what was said before
    assert run_command(module, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("genloop: ")
    assert error.count("\n") == 1, error
    assert sorted(place.rglob("*")) == before
    return error


def is_laid_out(shown: str, markdown: str) -> bool:
    """Whether Markdown is on a terminal of 100 columns as a whole: the same numbers, no line that is too long."""
    fits = all(len(line) <= 100 for line in shown.splitlines())
    return fits and sorted(re.findall(r"\d+", shown)) == sorted(re.findall(r"\d+", markdown))


def contents(run: Path, folders: Sequence[str] = COMPARED) -> dict[str, str]:
    """{relative path: sha256} of everything a run computed."""
    files = [path for name in folders for path in sorted((run / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_text(run: Path) -> bytes:
    """All rows in unit order: what does not depend on how units are cut."""
    return b"".join(path.read_bytes() for path in sorted((run / "rows").glob("*.jsonl")))
