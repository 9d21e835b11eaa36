"""What tests of whole runs share: starting workers, comparing run folders by their bytes, what a refusal is."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from genloop.job import run_command

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPARED = ("rows", "images")


def start(job: str, *words: str, rank: int = 0, world_size: int = 1) -> "subprocess.Popen[str]":
    """One worker of a job, by its name or its dotted path, as its own process."""
    place = {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", job if "." in job else f"jobs.{job}", *words],
        cwd=ROOT,
        env={**os.environ, **place},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def genloop(*words: str, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
    """The command, to its end."""
    command = [sys.executable, "-m", "launch.cli", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def launch(*words: str) -> "subprocess.Popen[str]":
    """The command in the background."""
    command = [sys.executable, "-m", "launch", "run", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_until(what: Callable[[], object], seconds: float = 60) -> None:
    """Look again until `what()` holds; fail after a generous time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


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


def contents(run: Path, folders: Sequence[str] = COMPARED) -> dict[str, str]:
    """{relative path: sha256} of everything a run computed."""
    files = [path for name in folders for path in sorted((run / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_text(run: Path) -> bytes:
    """All rows in unit order: what does not depend on how units are cut."""
    return b"".join(path.read_bytes() for path in sorted((run / "rows").glob("*.jsonl")))
