"""Kill workers of one evaluation at random, fifty times, most of them inside of a unit, and show that nothing changes.

    python benchmarks/stress_kill_evaluate.py --kills 50 --workers 3

Evaluates drawn scenes of the embedded world with its exact detector, slowed down to `--seconds` an image: once by one
undisturbed worker, once by two, by three, and once by a pool of workers of which a random one is killed with SIGKILL at
a random moment and replaced. Then compares every byte of rows/, summary.json and card.json. The exit code is 0 when all
are equal.
"""

import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kill_pool import kill_at_random
from genloop.environment import cpu_model, package_versions
from genloop.ledger import finished, read_rows
from genloop.shapes.prompts import prompt_set
from tests.runs import contents, start
from tests.worlds.image_folders import write_images

JOB = "tests.worlds.slow_evaluate"
RESULTS = ("summary.json", "summary.txt", "card.json")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--prompts", type=int, default=20, help="of each task")
    options.add_argument("--seconds", type=float, default=0.25, help="an image")
    options.add_argument("--seed", type=int, default=0)
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-stress-"))
    images = write_images(root / "images", prompt_set("test", 0, choice.prompts))
    words = ["detector.kind=slow", "colors=shapes", f"images={images}", "unit_size=4", "images_per_batch=1"]
    print(f"{cpu_model()}, {os.cpu_count()} cores, {package_versions()}")
    for workers in (1, 2, 3):
        out = root / f"by-{workers}"
        begin = time.monotonic()
        pool = [start(JOB, *words, f"out={out}", rank=rank, world_size=workers) for rank in range(workers)]
        codes = [worker.communicate() and worker.returncode for worker in pool]
        print(f"{workers} undisturbed: {len(finished(out))} units in {time.monotonic() - begin:.0f} s, exit {codes}")
    words.append(f"detector.options.seconds={choice.seconds}")
    wild = root / "wild"
    kills = kill_at_random(
        lambda: start(JOB, *words, f"out={wild}"),
        lambda pid: _doing(wild, pid),
        workers=choice.workers,
        kills=choice.kills,
        aim="inside of a unit",
        share=0.97,
        seed=choice.seed,
    )
    rows = collections.Counter(row["image"] for row in read_rows(wild))
    wanted = {row["image"] for row in read_rows(root / "by-1")}
    lost, doubled = len(wanted - set(rows)), sum(count - 1 for count in rows.values())
    left = [str(path) for folder in ("tmp", "leases") for path in (wild / folder).iterdir()]
    what = ", ".join(f"{number} {doing}" for doing, number in kills.most_common())
    equal = {name: _same(root / "by-1", root / name) for name in ("by-2", "by-3", "wild")}
    print(f"{kills.total()} kills ({what}): {lost} lost, {doubled} doubled, {len(left)} leftovers")
    print(f"rows and results byte-identical to one worker's: {equal}")
    shutil.rmtree(root)
    return 0 if all(equal.values()) and not lost and not doubled and not left else 1


def _same(a: Path, b: Path) -> bool:
    return contents(a) == contents(b) and all((a / name).read_bytes() == (b / name).read_bytes() for name in RESULTS)


def _doing(out: Path, pid: int) -> str:
    """What a worker is at: inside of a unit (it holds one), or starting."""
    for lease in (out / "leases").glob("*"):
        try:
            if json.loads(lease.read_text())["pid"] == pid:
                return "inside of a unit"
        except (FileNotFoundError, ValueError):
            continue
    return "starting"


if __name__ == "__main__":
    sys.exit(main())
