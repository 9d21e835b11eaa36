"""How long the command takes to answer when there is nothing to compute.

    python benchmarks/cli_start.py --repeats 20

Prints the median and the slowest of repeated runs of each command, beside the interpreter's own start; the exit code is
0 when the medians of `genloop --help` and `genloop jobs` are under 0.3 s.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.3  # seconds
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "genloop --help": ["-m", "launch", "--help"],
    "genloop jobs": ["-m", "launch", "jobs"],
    "genloop run generate --help": ["-m", "launch", "run", "generate", "--help"],
}
HELD_TO_LIMIT = ("genloop --help", "genloop jobs")


def main() -> int:
    """Measure and print -> exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=20)
    repeats = options.parse_args().repeats
    print(f"{cpu_model()}, Python {sys.version.split()[0]}, n = {repeats}")
    medians = {}
    for name, words in COMMANDS.items():
        taken = [seconds(words) for _ in range(repeats)]
        medians[name] = statistics.median(taken)
        print(f"{name:<28} median {1000 * medians[name]:4.0f} ms, slowest {1000 * max(taken):4.0f} ms")
    return 0 if all(medians[name] < LIMIT for name in HELD_TO_LIMIT) else 1


def seconds(words: list[str]) -> float:
    """Wall-clock time of one command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
