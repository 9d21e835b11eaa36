"""Peak memory and rate of one worker that generates for the embedded world.

    python benchmarks/generate_memory.py

Runs `generate` with and without a search in processes of their own; the exit code is 0 when each stays under 1 GB.
"""

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model, package_versions
from genloop.ledger import read_rows
from tests.runs import start

LIMIT = 1e9  # bytes
SEARCHES = {
    "none": ["search.strategy=none", "limit=96"],
    "best_of_n, n=20": ["search.strategy=best_of_n", "search.n=20", "limit=16"],
}


def main() -> int:
    """Measure and print -> exit code."""
    print(f"{cpu_model()}, {os.cpu_count()} cores, one thread, {package_versions()}")
    root = Path(tempfile.mkdtemp(prefix="genloop-memory-"))
    worst = 0
    for name, words in SEARCHES.items():
        out = root / name.split(",")[0]
        begin = time.perf_counter()
        worker = start("generate", "shapes", f"out={out}", *words)
        _, errors = worker.communicate()
        if worker.returncode != 0:
            print(errors, file=sys.stderr)
            return 1
        seconds = time.perf_counter() - begin
        candidates = sum(len(row["candidates"]) for row in read_rows(out))
        worst = max(worst, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
        print(f"{name}: {candidates} candidates in {seconds:.0f} s with start-up; peak so far {worst / 1e6:.0f} MB")
    shutil.rmtree(root)
    return 0 if worst < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
