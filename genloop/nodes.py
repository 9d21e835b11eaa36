"""Machines that start a run together: before any work each sees what the others write into the run folder.

Each writes RUN/logs/node-R.json with a sign of its own, fresh at every start, and the signs that it sees. The first
has met another when that one shows the first's sign, and the other way round: files of an earlier start, or a copy of
the folder, do not pass for it.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from genloop.lease import read_object
from genloop.rundir import json_bytes, write_atomic

SECONDS = 60.0  # also of --meet-timeout
_LOOK_SECONDS = 0.1


def node_of(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(node, nodes) of a worker that torchrun or srun started; (0, 1) for any other."""
    for names in (("GROUP_RANK", "GROUP_WORLD_SIZE"), ("SLURM_NODEID", "SLURM_STEP_NUM_NODES")):
        node, nodes = (environment.get(name, "") for name in names)
        if node.isdecimal() and nodes.isdecimal():
            return int(node), int(nodes)
    return 0, 1


@contextmanager
def together(run: Path, node: int, nodes: int, *, seconds: float = SECONDS, late: bool = False) -> Iterator[None]:
    """Meet the other nodes, then do the body; when either fails, what was written is removed again.

    `late`: a node may join at any time, and only looks for a folder that the first has begun. TimeoutError, which names
    this node and the folder, when nothing new is seen for `seconds`.
    """
    if nodes == 1:
        yield
        return
    token = run / "logs" / f"node-{node}.json"
    try:
        token.parent.mkdir(parents=True, exist_ok=True)
        _meet(run, token, node, nodes, seconds, late)
        yield
    except BaseException:
        with suppress(OSError):
            token.unlink(missing_ok=True)
            token.parent.rmdir()  # unless something else is in it
            run.rmdir()
        raise


def _meet(run: Path, token: Path, node: int, nodes: int, seconds: float, late: bool) -> None:
    own, seen = uuid.uuid4().hex, None
    others = range(1, nodes) if node == 0 else range(1)
    deadline = time.monotonic() + seconds
    while True:
        listed = {file.name for file in token.parent.iterdir()}  # makes a network file system look again
        files = {str(other): token.with_name(f"node-{other}.json") for other in others}
        found = {other: read_object(file) if file.name in listed else {} for other, file in files.items()}
        signs = {other: it["sign"] for other, it in found.items() if "sign" in it}
        if signs != seen:
            seen, deadline = signs, time.monotonic() + seconds
            write_atomic(token, json_bytes({"host": socket.gethostname(), "sign": own, "seen": seen}))
        if late and (node == 0 or seen or (run / "run.json").exists()):
            return
        missing = [other for other, it in found.items() if it.get("seen", {}).get(str(node)) != own]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"node {node} ({socket.gethostname()}) and node {missing[0]} have not met in {run.absolute()} for "
                f"{seconds:g} s ({len(listed)} files in its logs): start all {nodes}, with an `out` that all share"
            )
        time.sleep(_LOOK_SECONDS)
