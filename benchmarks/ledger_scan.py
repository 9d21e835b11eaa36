"""How long the state of a run with a million finished units takes to read.

python benchmarks/ledger_scan.py --units 1000000
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model
from genloop.ledger import count


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--units", type=int, default=1_000_000)
    total = options.parse_args().units
    run = Path(tempfile.mkdtemp(prefix="genloop-scan-"))
    for name in ("rows", "leases", "failed"):
        (run / name).mkdir()
    for i in range(total):
        os.close(os.open(run / "rows" / f"{i:05d}.jsonl", os.O_CREAT))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        state = count(run, total)
        times.append(time.perf_counter() - begin)
    shutil.rmtree(run)
    print(f"{cpu_model()}, Python {sys.version.split()[0]}")
    print(f"{state.done} of {total} units done; scan in {sorted(times)[2]:.2f} s (median of 5, max {max(times):.2f} s)")
    return 0 if state.done == total else 1


if __name__ == "__main__":
    sys.exit(main())
