"""Pace of `verify` over traces, and of the comparison of all traces: python benchmarks/irg_verify.py [--traces 100000]

Makes `--distinct` traces with build_irg, copies them under new keys to `--traces` in shards of 2,500, and verifies
these with one worker and with two. A copy is read, parsed and compared as any trace is. Then digits of texts are
changed, one a trace in `--changed` traces, and each has to be found. Last, `leakage` compares `--traces` fingerprints
whose signatures are drawn at random. The exit code is 0 when what is right passes and every change is found.
"""

import argparse
import base64
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.data.irg.dedupe import NUM_HASHES, leakage
from genloop.data.irg.exports.own import Own
from genloop.data.irg.phrases import NUMBER
from genloop.data.irg.verify import verify_sample
from genloop.data.shards import Sample, write_shard
from genloop.environment import cpu_model, package_versions
from genloop.ledger import read_rows
from tests.runs import start

SHARD = 2500


def copies(samples: list[Sample], number: int, first: int) -> Iterator[Sample]:
    """Traces in turn, under new keys."""
    for place in range(first, first + number):
        one = samples[place % len(samples)]
        key = f"c{place:09d}"
        data = one.fields["json"].replace(f'"id":"{one.key}"'.encode(), f'"id":"{key}"'.encode(), 1)
        yield Sample(key, {**one.fields, "json": data})


def verify(folder: Path, out: Path, workers: int) -> tuple[float, float, int]:
    """-> seconds from the start of the workers to their end, CPU-seconds inside of units, problems that are faults"""
    begin = time.monotonic()
    words = [f"run={folder}", f"out={out}", "unit_size=1"]
    pool = [start("verify", *words, rank=rank, world_size=workers) for rank in range(workers)]
    for worker in pool:
        worker.communicate(3600)
    took = time.monotonic() - begin
    lines = [line for log in out.glob("logs/*.units.jsonl") for line in log.read_text().splitlines()]
    faults = sum(sum(row["problems"].values()) for row in read_rows(out))
    return took, sum(json.loads(line)["cpu_seconds"] for line in lines), faults


def changed(samples: list[Sample], number: int) -> int:
    """How many of so many changes of one digit in a text of a trace are found."""
    draw, found = random.Random(0), 0
    for _ in range(number):
        one = draw.choice(samples)
        row = json.loads(one.fields["json"])
        places = [(row, "reasoning_text")]
        places += [(part, name) for part in row["rounds"] for name in ("reasoning_text", "diagnosis_text")]
        places += [(message, "content") for message in row["messages"]]
        spots = [(part, name, match) for part, name in places for match in NUMBER.finditer(part[name])]
        part, name, match = draw.choice(spots)
        digit = match.end() - 1
        other = (int(part[name][digit]) + draw.randint(1, 9)) % 10
        part[name] = f"{part[name][:digit]}{other}{part[name][digit + 1 :]}"
        problems = verify_sample(Sample(one.key, {**one.fields, "json": json.dumps(row).encode()}))
        found += any(problem.is_fault for problem in problems)
    return found


def fingerprints(number: int) -> Iterator[dict[str, object]]:
    """Rows whose texts and images have nothing in common."""
    draw = np.random.default_rng(0)
    for place in range(number):
        values = draw.integers(1 << 32, size=NUM_HASHES, dtype=np.uint32)
        image, text = draw.integers(1 << 62), f"{place:032x}"
        signature = base64.b64encode(values.astype("<u4").tobytes()).decode()
        row = {"key": f"{place:09d}", "split": "test" if place % 10 == 0 else "train", "scene": text, "text": text}
        yield row | {
            "minhash": signature,
            "image": f"{int(image):016x}",
            "templates": ["finding.0"] if place % 10 else [],
        }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--traces", type=int, default=100_000)
    options.add_argument("--distinct", type=int, default=400)
    options.add_argument("--changed", type=int, default=2000)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-irg-verify-"))
    print(f"{cpu_model()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {package_versions()}")
    maker = start("build_irg", "irg", f"out={root / 'made'}", f"num_traces={choice.distinct}", "unit_size=50")
    maker.communicate(3600)
    samples = list(Own().read(root / "made"))
    for number, first in enumerate(range(0, choice.traces, SHARD)):
        write_shard(root / "set" / f"{number:05d}.tar", copies(samples, min(SHARD, choice.traces - first), first))
    size = sum(path.stat().st_size for path in (root / "set").glob("*.tar"))
    print(f"{choice.traces} traces, {size / 1e6:.0f} MB")
    is_right = True
    for workers in choice.workers:
        took, cpu, faults = verify(root / "set", root / f"of-{workers}", workers)
        pace, each = choice.traces / took * 60, choice.traces / cpu * 60
        print(f"{workers} workers: {took:.1f} s, {pace:,.0f} a minute, {each:,.0f} a CPU-minute, {faults} problems")
        is_right &= faults == 0
    found = changed(samples, choice.changed)
    print(f"{found} of {choice.changed} changed digits found")
    begin = time.process_time()
    leaks = leakage(fingerprints(choice.traces))
    took = time.process_time() - begin
    print(f"leakage of {choice.traces} fingerprints: {took:.1f} CPU-seconds, {len(leaks.duplicates)} duplicates")
    shutil.rmtree(root)
    return 0 if is_right and found == choice.changed else 1


if __name__ == "__main__":
    sys.exit(main())
