"""Processes that tests start: real ones, forked from a server that has imported torch and transformers already.

A worker of its own spends seconds on imports and milliseconds on the tiny world. A forked one can be killed, stopped
and waited for in the same way. What is about imports or about starting itself uses `subprocess`.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = [
    "torch.distributed.tensor",
    "transformers.models.phi.modeling_phi",
    "transformers.models.llava_onevision.modeling_llava_onevision",
    "jobs.generate",
    "jobs.evaluate",
    "genloop.training.loop",
]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class TimedOut(AssertionError):
    """A process that did not end."""


class Worker:
    """A module run as `python -m MODULE WORD ...`; standard output and error are kept in files."""

    def __init__(self, module: str, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._files = [tempfile.NamedTemporaryFile(mode="r", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._files]
        self._process = _context.Process(target=_run, args=(module, list(words), dict(environment or {}), names))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As that of subprocess.Popen: minus the signal of a killed process, None of a living one."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None while it lives."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing happens to a process that is over."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 300) -> int | None:
        """Wait for its end -> exit code."""
        self.communicate(timeout)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end -> standard output, standard error."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
            raise TimedOut(f"still running after {timeout} s: {self._texts()}")
        return self._texts()

    def _texts(self) -> tuple[str, str]:
        out, error = (Path(file.name).read_text(encoding="utf-8") for file in self._files)
        return out, error


def wait_for(path: Path, pattern: str, *, beside: Sequence[Worker], seconds: float = 300) -> None:
    """Return as soon as a file like `pattern` is below `path`; fail when the workers end before or after a time."""
    deadline = time.monotonic() + seconds
    while not any(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        assert any(worker.poll() is None for worker in beside), [worker.communicate() for worker in beside]
        time.sleep(0.002)


def _run(module: str, words: list[str], environment: dict[str, str], files: list[str]) -> None:
    for number, name in zip((1, 2), files, strict=True):
        descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.modules.pop(module, None)  # imported beforehand by the server; it runs as __main__ now
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
