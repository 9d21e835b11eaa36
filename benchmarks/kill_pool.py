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

    `launch` starts a worker, `doing` says of a process what it is at. So many of the kills as `share` says, spread over
    the run by chance, each wait until a worker is at `aim`. A worker that ends by itself has found the run done: there
    are no more kills then.
    """
    chance = random.Random(seed)
    aimed = round(share * kills)
    aims = chance.sample([aim] * aimed + [None] * (kills - aimed), kills)
    pool = [launch() for _ in range(workers)]
    done: collections.Counter[str] = collections.Counter()
    while done.total() < kills and all(worker.poll() is None for worker in pool):
        time.sleep(chance.uniform(0.05, 0.6))
        index = chance.randrange(len(pool))
        at, wanted = doing(pool[index].pid), aims[done.total()]
        if pool[index].poll() is None and wanted in (at, None):
            pool[index].send_signal(signal.SIGKILL)
            pool[index].communicate()
            pool[index] = launch()
            done[at] += 1
    for worker in pool:
        worker.communicate()
    launch().communicate()
    return done
