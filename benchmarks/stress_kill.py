"""Kill workers of one run at random, a hundred times, and show that nothing is lost or doubled.

    python benchmarks/stress_kill.py --kills 100 --workers 3
    python benchmarks/stress_kill.py --images shards --kills 20 --workers 1 2 3 --limit 48

Runs `generate` on the embedded world twice: once undisturbed, once with a pool of workers of which a random one is
killed with SIGKILL at a random moment and replaced, until the number of kills is reached. Then compares every byte of
rows/, of images/ or shards/, and of checksums/. Each number of workers is a pool and a run of its own. The exit code is
0 when all are equal.
"""

import argparse
import collections
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kill_pool import kill_at_random
from genloop import terminal
from genloop.environment import cpu_model, package_versions
from genloop.ledger import finished, read_rows
from tests.runs import contents, start

PRESET = "shapes"
COMPARED = ("rows", "images", "shards", "checksums")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=100, help="of each pool")
    options.add_argument("--workers", type=int, nargs="+", default=[3], help="in each pool")
    options.add_argument("--limit", type=int, default=396, help="prompts")
    options.add_argument("--images", choices=("folder", "shards"), default="folder")
    options.add_argument("--seed", type=int, default=0)
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-stress-"))
    words = ["unit_size=2", f"limit={choice.limit}", "search.strategy=best_of_n", "search.n=8", "images_per_prompt=2"]
    words.append(f"images={choice.images}")
    terminal.out(f"{cpu_model()}, {os.cpu_count()} cores, {package_versions()}")
    quiet = root / "quiet"
    begin = time.monotonic()
    start("generate", PRESET, f"out={quiet}", *words).communicate()
    terminal.out(f"undisturbed: {len(finished(quiet))} units in {time.monotonic() - begin:.0f} s")
    failed = [num for num in choice.workers if not _survives(root, quiet, words, num, choice.kills, choice.seed)]
    shutil.rmtree(root)
    return 1 if failed else 0


def _survives(root: Path, quiet: Path, words: Sequence[str], workers: int, kills: int, seed: int) -> bool:
    """Whether a run with so many workers and kills ends as the undisturbed one."""
    wild = root / f"wild-{workers}"
    killed = kill_at_random(
        lambda: start("generate", PRESET, f"out={wild}", *words),
        lambda pid: doing(wild, pid),
        workers=workers,
        kills=kills,
        aim="working",
        share=0.8,
        seed=seed,
    )
    rows = collections.Counter((row["prompt_index"], row["sample"]) for row in read_rows(wild))
    wanted = {(row["prompt_index"], row["sample"]) for row in read_rows(quiet)}
    lost, doubled = len(wanted - set(rows)), sum(count - 1 for count in rows.values())
    equal = contents(quiet, COMPARED) == contents(wild, COMPARED)
    left = [str(path.relative_to(wild)) for folder in ("tmp", "leases") for path in (wild / folder).iterdir()]
    what = ", ".join(f"{number} {at}" for at, number in killed.most_common())
    terminal.out(
        f"{workers} workers, {killed.total()} kills ({what}): {lost} lost, {doubled} doubled, {len(left)} leftovers; "
        f"{len(contents(wild, COMPARED))} files byte-identical: {'yes' if equal else 'no'}"
    )
    return equal and not lost and not doubled and not left and killed.total() >= kills


def doing(out: Path, pid: int) -> str:
    """What a worker is at: starting, loading (or at its first unit), or working (it holds a later one)."""
    for lease in (out / "leases").glob("*"):
        try:
            holds = json.loads(lease.read_text())["pid"] == pid
        except FileNotFoundError:
            continue
        if holds:
            status = list((out / "logs").glob(f"*-{pid}-r0.status.json"))
            return "working" if status and json.loads(status[0].read_text())["units"] else "loading"
    return "starting"


if __name__ == "__main__":
    sys.exit(main())
