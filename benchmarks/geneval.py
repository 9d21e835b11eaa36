"""Evaluating images by GenEval's rules: one at a time, as published, against ours, on the same weights and images.

    python benchmarks/geneval.py                      48 images of 512 px, both ways and ours on two workers
    python benchmarks/geneval.py --images 12          a quick look
    python benchmarks/geneval.py --network swin-s --images 2 --repeats 1      at the published sizes
    python benchmarks/geneval.py --detector FOLDER --colors FOLDER            weights of your own

As published: benchmarks/geneval_published.py. Ours, as a worker of `evaluate` does it: only what is read of the network
is computed; masks are made for what passes the threshold, one at a time; the crops of eight images go through CLIP
together; images are decoded ahead. Weights, images and prompts: benchmarks/geneval_world.py.

Each way runs in processes of its own, so that seconds and peak memory (theirs and that of the processes they start) are
its own. Verdicts, reasons and boxes have to be those of the published way on one thread, scores to 1e-5: on two threads
sums are in another order, so that it differs from itself. Ratios are to the faster of the published ways.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.geneval_published import published
from benchmarks.geneval_world import NETWORKS, load, prepare_work
from geneval.colors.zero_shot import ClipColors
from geneval.evaluation import judge_samples
from geneval.folder import Sample, find_samples
from geneval.settings import Evaluator
from genloop.data.image_reader import ImageReader
from genloop.environment import cpu_model, package_versions
from genloop.runs.rows import EvaluatedRow

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8  # images in one call of ours, the default of `evaluate`


def ours(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[dict[str, Any]]:
    """As a worker of `evaluate` does a unit."""
    rows: list[EvaluatedRow] = []
    names = [sample.image for sample in samples]
    with ImageReader(images) as reader:
        for start in range(0, len(samples), BATCH):
            pixels = reader.take(names[start : start + BATCH])
            reader.go_on(names[start + BATCH : start + 2 * BATCH])
            rows += judge_samples(samples[start : start + BATCH], pixels, evaluator)
    return [row.model_dump(include={"correct", "reason", "details"}) for row in rows]


WAYS = {"published": published, "ours": ours}
RUNS = {  # name -> way, workers, threads of each
    "published, 1 thread": ("published", 1, 1),
    "published, 2 threads": ("published", 1, 2),
    "ours, 1 worker": ("ours", 1, 1),
    "ours, 2 workers": ("ours", 2, 1),
}


def measure(way: str, place: Path, detector: Path, colors: Path, part: int, parts: int, threads: int) -> dict[str, Any]:
    """One way over every `parts`-th image, in this process: seconds from the first image on, peaks, rows."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message="This DataLoader will create 4")  # as published, on any machine
    evaluator: Evaluator = load(detector, colors)
    assert isinstance(evaluator.colors, ClipColors)
    samples = find_samples(place / "images")[part::parts]
    loaded = _resident("VmRSS")
    began, used = time.perf_counter(), _cpu()
    rows = WAYS[way](samples, place / "images", evaluator)
    seconds, cpu = time.perf_counter() - began, _cpu() - used
    return {
        "seconds": seconds,
        "cpu": cpu,
        "loaded_mib": loaded,
        "peak_mib": _resident("VmHWM"),
        "child_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "rows": rows,
    }


def _cpu() -> float:
    """Seconds of this process and of those it started and saw end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _resident(key: str) -> int:
    """MiB of this process: VmRSS now, VmHWM at the most; `ru_maxrss` would begin at the size of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(key))


def in_processes(way: str, place: Path, detector: Path, colors: Path, parts: int, threads: int) -> dict[str, Any]:
    """`measure` in `parts` fresh processes side by side -> the slowest one's seconds, the largest peak, all rows."""
    command = [sys.executable, __file__, "--measure", way, "--place", str(place), "--threads", str(threads)]
    command += ["--detector", str(detector), "--colors", str(colors), "--parts", str(parts)]
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen([*command, "--part", str(part)], env=environment, stdout=subprocess.PIPE, text=True)
        for part in range(parts)
    ]
    found = []
    for process in started:
        text = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"{way} failed with exit code {process.returncode}")
        found.append(json.loads(text.splitlines()[-1]))
    rows = [one["rows"] for one in found]
    whole = {key: max(one[key] for one in found) for key in ("seconds", "loaded_mib", "peak_mib", "child_mib")}
    return {
        **whole,
        "cpu": sum(one["cpu"] for one in found),
        "rows": [rows[k % parts][k // parts] for k in range(sum(map(len, rows)))],
    }


def compare(place: Path, detector: Path, colors: Path, repeats: int) -> None:
    """Print all ways, in turns, medians of wall seconds; verdicts are held against the published way on one thread."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for _ in range(repeats):
        for name, (way, parts, threads) in RUNS.items():
            runs[name].append(in_processes(way, place, detector, colors, parts, threads))
    seconds = {name: [run["seconds"] for run in found] for name, found in runs.items()}
    base = min((name for name in RUNS if RUNS[name][0] == "published"), key=lambda name: np.median(seconds[name]))
    expected = runs["published, 1 thread"][0]["rows"]
    clauses = sum(clause.color is not None for s in find_samples(place / "images") for clause in s.prompt.include)
    print(f"{clauses} colour clauses; {sum(row['correct'] for row in expected)} of {len(expected)} images correct")
    print("| way | s an image | CPU s an image | peak of a worker | of a process it starts | verdicts equal | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        wall, cpu = float(np.median(seconds[name])), float(np.median([run["cpu"] for run in found]))
        equal = min(sum(map(same, run["rows"], expected)) for run in found)
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds[base], seconds[name]))
        peak, loaded, inner = (max(run[key] for run in found) for key in ("peak_mib", "loaded_mib", "child_mib"))
        print(
            f"| {name} | {wall / len(expected):.3f} | {cpu / len(expected):.3f} | {peak} MiB ({peak - loaded} above "
            f"the weights) | {inner} MiB | {equal} of {len(expected)} | {np.median(seconds[base]) / wall:.1f} x "
            f"({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
        )


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Verdict, reason, classes and boxes equal, scores to 1e-5."""
    if (row["correct"], row["reason"], list(row["details"])) != (
        other["correct"],
        other["reason"],
        list(other["details"]),
    ):
        return False
    pairs = [(np.array(found), np.array(other["details"][name])) for name, found in row["details"].items()]
    return all(
        a.shape == b.shape and (a[:, :4] == b[:, :4]).all() and np.allclose(a[:, 4], b[:, 4], rtol=0, atol=1e-5)
        for a, b in pairs
    )


def describe_machine() -> str:
    """Processor, load, versions."""
    versions = package_versions()
    return (
        f"{cpu_model()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
        f"torch {versions['torch']}, transformers {versions['transformers']}"
    )


def main() -> None:
    """Parse the command line; print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", choices=NETWORKS, default="small", help="sizes of the random Mask2Former")
    parser.add_argument("--detector", type=Path, help="a Mask2Former folder in place of the random one")
    parser.add_argument("--colors", type=Path, help="a CLIP folder of transformers in place of the small one")
    for name in ("--place", "--measure"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name, default in (("--part", 0), ("--parts", 1), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        place = Path(given.place)
        numbers = (given.part, given.parts, given.threads)
        print(json.dumps(measure(given.measure, place, given.detector, given.colors, *numbers)))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        weights = prepare_work(Path(folder), given.images, given.network, given.detector, given.colors)
        compare(Path(folder), *weights, given.repeats)


if __name__ == "__main__":
    main()
