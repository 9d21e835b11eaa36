"""Kill workers of one run at random, a hundred times, and show that nothing is lost or doubled.

    python benchmarks/stress_kill.py --kills 100 --workers 3

Runs `generate` on the embedded world twice: once undisturbed, once with a pool of workers of which a random one is
killed with SIGKILL at a random moment and replaced, until the number of kills is reached. Then compares every byte of
rows/ and images/. The exit code is 0 when the two are equal.
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
from tests.runs import contents, start

PRESET = "shapes"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--limit", type=int, default=396, help="prompts")
    options.add_argument("--seed", type=int, default=0)
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-stress-"))
    words = ["unit_size=2", f"limit={choice.limit}", "search.strategy=best_of_n", "search.n=8", "images_per_prompt=2"]
    print(f"{cpu_model()}, {os.cpu_count()} cores, {package_versions()}")
    quiet, wild = root / "quiet", root / "wild"
    begin = time.monotonic()
    start("generate", PRESET, f"out={quiet}", *words).communicate()
    print(f"undisturbed: {len(finished(quiet))} units in {time.monotonic() - begin:.0f} s")
    kills = kill_at_random(
        lambda: start("generate", PRESET, f"out={wild}", *words),
        lambda pid: _doing(wild, pid),
        workers=choice.workers,
        kills=choice.kills,
        aim="decoding",
        share=0.8,
        seed=choice.seed,
    )
    rows = collections.Counter((row["prompt_index"], row["sample"]) for row in read_rows(wild))
    wanted = {(row["prompt_index"], row["sample"]) for row in read_rows(quiet)}
    lost, doubled = len(wanted - set(rows)), sum(count - 1 for count in rows.values())
    equal = contents(quiet) == contents(wild)
    left = [str(path.relative_to(wild)) for folder in ("tmp", "leases") for path in (wild / folder).iterdir()]
    what = ", ".join(f"{number} {doing}" for doing, number in kills.most_common())
    print(f"{kills.total()} kills ({what}): {lost} lost, {doubled} doubled, {len(left)} leftovers")
    print(f"rows and images byte-identical: {'yes' if equal else 'no'}")
    shutil.rmtree(root)
    return 0 if equal and not lost and not doubled and not left and kills.total() >= choice.kills else 1


def _doing(out: Path, pid: int) -> str:
    """What a worker is at: starting, loading (or at its first unit), or decoding (it holds a later one)."""
    for lease in (out / "leases").glob("*"):
        try:
            holds = json.loads(lease.read_text())["pid"] == pid
        except FileNotFoundError:
            continue
        if holds:
            status = list((out / "logs").glob(f"*-{pid}-r0.status.json"))
            return "decoding" if status and json.loads(status[0].read_text())["units"] else "loading"
    return "starting"


if __name__ == "__main__":
    sys.exit(main())
