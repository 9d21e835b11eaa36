"""Pace of the refinement corpus, over workers, and its bytes after kills: python benchmarks/irg.py [--traces 4000]

Makes the corpus of the preset `irg` with one worker and with two, then again with two workers of which a random one is
killed with SIGKILL at a random moment and replaced, `--kills` times. The exit code is 0 when rows, shards and summary
are the same bytes every time.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kill_pool import kill_at_random
from benchmarks.stress_kill import doing
from genloop.environment import cpu_model, package_versions
from genloop.ledger import finished
from tests.runs import contents, start

FOLDERS = ("rows", "shards")


def make(out: Path, words: list[str], workers: int) -> tuple[float, float]:
    """-> seconds from the start of the workers to their end, CPU-seconds inside of units"""
    begin = time.monotonic()
    pool = [start("build_irg", "irg", f"out={out}", *words, rank=rank, world_size=workers) for rank in range(workers)]
    for worker in pool:
        worker.communicate(3600)
        assert worker.returncode == 0
    took = time.monotonic() - begin
    lines = [line for log in out.glob("logs/*.units.jsonl") for line in log.read_text().splitlines()]
    return took, sum(json.loads(line)["cpu_seconds"] for line in lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--traces", type=int, default=4000)
    options.add_argument("--unit", type=int, default=250)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--killed-traces", type=int, default=400, help="traces of the run that is killed")
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-irg-"))
    print(f"{cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {package_versions()}")
    words = [f"num_traces={choice.traces}", f"unit_size={choice.unit}"]
    seen = []
    for workers in choice.workers:
        out = root / f"of-{workers}"
        took, cpu = make(out, words, workers)
        size = sum(path.stat().st_size for path in (out / "shards").rglob("*.tar"))
        print(
            f"{workers} workers: {choice.traces} traces in {took:.0f} s, {cpu:.1f} CPU-seconds in units, "
            f"{choice.traces / cpu:.1f} traces a CPU-second, {size / 1e6:.0f} MB"
        )
        seen.append((contents(out, FOLDERS), (out / "summary.json").read_bytes()))
    equal = all(one == seen[0] for one in seen)
    print(f"the same bytes from {' and '.join(map(str, choice.workers))} workers: {'yes' if equal else 'no'}")
    if choice.kills:
        equal &= kill(root, choice.killed_traces, choice.kills)
    shutil.rmtree(root)
    return 0 if equal else 1


def kill(root: Path, traces: int, kills: int) -> bool:
    """Whether a run whose workers are killed has the bytes of one that is left alone."""
    words = [f"num_traces={traces}", "unit_size=4"]
    quiet, wild = root / "quiet", root / "wild"
    make(quiet, words, 1)
    done = kill_at_random(
        lambda: start("build_irg", "irg", f"out={wild}", *words),
        lambda pid: doing(wild, pid),
        workers=2,
        kills=kills,
        aim="working",
        share=0.8,
        seed=0,
    )
    equal = contents(quiet, FOLDERS) == contents(wild, FOLDERS)
    equal &= (quiet / "summary.json").read_bytes() == (wild / "summary.json").read_bytes()
    left = [path.name for folder in ("tmp", "leases") for path in (wild / folder).iterdir()]
    what = ", ".join(f"{number} {at}" for at, number in done.most_common())
    print(
        f"{done.total()} kills ({what}) in {len(finished(wild))} units: {len(left)} files left over, the same bytes: "
        f"{'yes' if equal else 'no'}"
    )
    return equal and not left


if __name__ == "__main__":
    sys.exit(main())
