"""A pool of workers of one run, of which a random one is killed at a random moment and replaced."""

import collections
import random
import signal
import subprocess
import time
from collections.abc import Callable


def kill_at_random(
    launch: Callable[[], "subprocess.Popen[str]"],
    doing: Callable[[int], str],
    *,
    workers: int,
    kills: int,
    aim: str,
    share: float,
    seed: int,
) -> "collections.Counter[str]":
    """Keep the pool full and kill, then let the rest finish -> kills by what the worker was doing.

    `launch` starts a worker, `doing` says of a process what it is at; `share` of the kills wait for a worker at `aim`.
    """
    chance = random.Random(seed)
    pool = [launch() for _ in range(workers)]
    done: collections.Counter[str] = collections.Counter()
    while done.total() < kills:
        time.sleep(chance.uniform(0.05, 0.6))
        index, wanted = chance.randrange(len(pool)), aim if chance.random() < share else "anything"
        at = doing(pool[index].pid)
        if pool[index].poll() is None and wanted in (at, "anything"):
            pool[index].send_signal(signal.SIGKILL)
            done[at] += 1
        if pool[index].poll() is not None:
            pool[index].communicate()
            pool[index] = launch()
    for worker in pool:
        worker.communicate()
    launch().communicate()
    return done
