"""Ranks of one process group, as forked children of a test: they are spared the imports."""

import os
import socket
import traceback
from collections.abc import Callable

import pytest

from genloop.distributed import LAUNCHERS


def on_two_ranks(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], int], *, launcher: int = 0, meeting: bool = True
) -> list[int]:
    """Do `work` on both ranks, under the variables of a launcher, and of their `meeting` point -> the exit codes."""
    return on_ranks(2, monkeypatch, work, launcher=launcher, meeting=meeting)


def on_ranks(
    num_ranks: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], int], *, launcher: int = 0, meeting: bool = True
) -> list[int]:
    """The same on any number of ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    if not meeting:
        places = {}
    children = []
    for rank in range(num_ranks):
        child = os.fork()
        if child == 0:
            for names in LAUNCHERS:
                for name in names:
                    monkeypatch.delenv(name, raising=False)
            numbers = zip(LAUNCHERS[launcher], (str(rank), str(num_ranks), str(rank)), strict=True)
            for name, value in {**places, **dict(numbers)}.items():
                monkeypatch.setenv(name, value)
            os._exit(_code(work))
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _code(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - a child must not go on with the tests of its parent
        traceback.print_exc()
        return 1
