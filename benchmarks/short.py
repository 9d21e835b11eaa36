"""Every benchmark of speed in its short form, one after the other, as one table: `make bench`, a quarter of an hour.

    python -m benchmarks.short                       all of them, on two quiet cores
    python -m benchmarks.short showo_decode judge    some

A row is what the script of that name prints of itself; benchmarks/README.md says what is measured and how the long form
is run. The exit code is 1 when a script fails; figures below their aim are shown, not refused.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.showo_decode import describe_machine
from genloop.environment import git_state

ROOT = Path(__file__).resolve().parent.parent


class Short(NamedTuple):
    """A script's short form: its words, what to read off its output, what that is, and what is aimed at."""

    words: str
    reads: str  # a pattern, found any number of times, whose groups are shown
    unit: str
    aim: str


SHORT = {
    "showo_decode": Short("--geometry 256 --candidates 4", r"ratio +([\d.]+) x", "x the published loop", "3"),
    "showo_launches": Short("--layers 6", r"ratio +([\d.]+) x", "x fewer operations a step", "3"),
    "judge": Short(
        "--size tiny --images 8 --published 2 --repeats 1",
        r'"ratio": ([\d.]+)',
        "x the published way with 100 and 2 tokens of answer, and in operations",
        "10",
    ),
    "search_vs_published": Short(
        "--geometry 128 --bits 8 --candidates 4 --answers 1 --images 2 --published-images 2",
        r'"strategy": "([^"]+)".*?"ratio_1": ([\d.]+)',
        "x the published loops",
        "4, 6, 12",
    ),
    "geneval": Short("--images 12 --repeats 1", r"\| ([\d.]+) x \(", "x one image at a time, by way", "5"),
    "dpo_step": Short(
        "--bits 8 --batch 2 --pairs 8 --rounds 2",
        r"\| ([\w ,]+) \| [\d.]+ \| ([\d.]+) \(",
        "x the published step",
        "3",
    ),
    "image_metrics": Short("--pairs 64", r"all \|.*\| ([\d.]+)", "x scikit-image and ImageHash, one pair a time", "10"),
    "teacher": Short("--repeats 1 --prompts 8", r"draws ([\d.]+) x", "x a plain loop of diffusers", "1"),
    "edit": Short(
        "--out runs/edit-benchmark --rounds 1 --requests 2 --images 4 --steps 4",
        r"\| (edit|stages|encoded) \| [\d.]+ \| ([\d.]+)",
        "x a plain loop of the stock pipelines",
        "1",
    ),
    "irg_verify": Short(
        "--traces 5000 --distinct 100 --changed 200", r"([\d,]+) a CPU-minute", "traces a CPU-minute", "100,000"
    ),
    "irg": Short(
        "--traces 200 --unit 50 --kills 2 --killed-traces 100",
        r"([\d.]+) traces a CPU-second",
        "traces a CPU-second with 1 and 2 workers",
        "4",
    ),
    "shards": Short("--schemas 2", r"opened in ([\d.]+) CPU", "CPU-seconds to open a million samples", "below 1"),
    "ledger_scan": Short("--units 200000", r"scan in ([\d.]+) s", "s to read the state of 200,000 units", "below 0.4"),
    "scale": Short("--workers 8 64", r"\| ([-+\d.]+ %) \|", "above the ideal makespan with 8 and 64 workers", "2 %"),
    "cli_start": Short("--repeats 5", r"median +(\d+) ms", "ms: the interpreter, --help, jobs", "300"),
}


def main() -> int:
    """Run what was asked for, print the table -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHORT))
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in SHORT]:
        parser.error(f"no short form is called {', '.join(unknown)}; there are {', '.join(SHORT)}")
    state = git_state(ROOT) or {"commit": "unknown", "dirty": False}
    print(f"{describe_machine()}; commit {state['commit'][:10]}{' with changes' * state['dirty']}\n")
    print("| benchmark | found | aim | seconds |\n|---|---|---|---|")
    failed = False
    for name in names or SHORT:
        row, good = measured(name, SHORT[name])
        print(row, flush=True)
        failed |= not good
    return int(failed)


def measured(name: str, short: Short) -> tuple[str, bool]:
    """Run one script -> its row, whether it ended well."""
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", f"benchmarks.{name}", *short.words.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    found = [" ".join(match.groups()) for match in re.finditer(short.reads, done.stdout)]
    good = done.returncode == 0 and bool(found)
    if not good:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    told = f"{'; '.join(found)} {short.unit}" if good else f"failed with {done.returncode}"
    return f"| {name} | {told} | {short.aim} | {time.monotonic() - began:.0f} |", good


def environment() -> dict[str, str]:
    """One thread, and this checkout's packages."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    sys.exit(main())
