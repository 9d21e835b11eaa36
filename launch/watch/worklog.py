"""What a person needs to see of a failed worker's log: the traceback of the cause, and where the rest is."""

import signal
from collections.abc import Mapping
from pathlib import Path

from genloop.failures import ECHO, read_failures
from launch.backends.worker import log_file

MAX_LINES = 60


def explain(logs: Path, news: Mapping[int, str], since: float, code: int | None, rank: int | None) -> str:
    """News are what each rank wrote to its log since this start; code and rank of the worker that failed first."""
    failed = next((f.rank for f in read_failures(logs, since) if f.rank in news and not f.is_echo), None)
    if failed is None or (code is not None and code < 0):
        failed = _root_cause(news, rank)
    if failed is None:
        agents = sorted(logs.glob("torchrun*.log"), key=lambda path: path.stat().st_mtime)  # one a machine
        tail = agents[-1].read_text(errors="replace").splitlines()[-MAX_LINES:] if agents else []
        return "\n".join([*tail, f"genloop: the workers {_ending(code)}; their logs are in {logs}", ""])
    ending = _ending(code if failed == rank else 1)
    return "\n".join(
        [*excerpt(news[failed]), f"genloop: worker {failed} {ending}; its log is {log_file(logs, failed)}", ""]
    )


def excerpt(text: str) -> list[str]:
    """The lines from the first traceback on, or the last few lines of a log without one."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if "Traceback (most recent call last)" in line), None)
    return lines[-5:] if first is None else lines[first:][-MAX_LINES:]


def _root_cause(news: Mapping[int, str], rank: int | None) -> int | None:
    """The rank whose failure is its own, from the logs of workers that left no record: those that lost a peer last."""
    told = {r: text for r, text in news.items() if "Traceback" in text}
    own = [r for r, text in told.items() if not ECHO.search(text.strip().rpartition("\n")[2])]
    if rank in own or (rank is not None and not own):
        return rank
    return next(iter(own or told), rank)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"was killed by {known.get(-code, f'signal {-code}')}"  # real-time signals have no names
    return f"failed with exit code {code}"
