"""A diffusion teacher: images a second of `generate` against a plain loop of diffusers, and what a search costs.

    python benchmarks/teacher.py                                     a small SDXL with random weights, made here
    python benchmarks/teacher.py --pipeline FOLDER --steps 16        any folder of diffusers
    python benchmarks/teacher.py --pipeline FOLDER --search 8 --judge shapes/judge --figure teacher.svg

Rates: each side is a process of its own with one thread that loads the same folder and draws the same prompts with
the same solver, steps, guidance and number of images a prompt, PNG files included. Images a CPU-second come from all
prompts but the first four, which warm up; sides take turns. Memory is the peak of the whole process. On a CPU
`generate` passes one image at a time, so that no image depends on others to the last bit; --batch 1 has diffusers do
the same.

--search N: one run of best_of_n and one of parm with N candidates. The score is the judge's answer for the chosen
image; smaller N of best_of_n are expectations over all subsets of its N candidates. The cost at equal score is read
off that curve at parm's score; its interval is a bootstrap over prompts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop import terminal
from genloop.environment import cpu_model, package_versions
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.planning import unit_times
from genloop.reading import read_json_object
from genloop.report.figures.canvas import At
from genloop.report.figures.frontier import Dot, Series, frontier_svg
from genloop.rundir import write_atomic
from genloop.runs.generated import read_generated
from genloop.stats.best_of_k import best_of_k
from genloop.stats.intervals import Interval

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "configs" / "prompts" / "shapes_test" / "generation_prompts.txt"
WARM = 4  # prompts; also those of a unit
RESAMPLES = 2000


def drawn_by_diffusers(choice: argparse.Namespace, out: Path) -> dict[str, float]:
    """A plain loop: a call a prompt, its images in one batch."""
    import torch
    from diffusers import DDIMScheduler, DiffusionPipeline

    torch.set_num_threads(1)
    pipe = DiffusionPipeline.from_pretrained(choice.pipeline, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    begin = 0.0
    for number, prompt in enumerate(_prompts(choice)):
        if number == WARM:
            begin = time.process_time()
        seeds = [torch.Generator().manual_seed(100 * number + image) for image in range(choice.batch)]
        images = pipe(
            prompt,
            num_inference_steps=choice.steps,
            guidance_scale=choice.guidance,
            num_images_per_prompt=choice.batch,
            generator=seeds,
            height=choice.side,
            width=choice.side,
        ).images
        for place, image in enumerate(images):
            image.save(out / f"{number:05d}_{place}.png")
    return _rate(choice, time.process_time() - begin)


def drawn_by_generate(choice: argparse.Namespace, out: Path) -> dict[str, float]:
    """The job."""
    from jobs import generate

    assert run_command(generate, [*_words(choice), f"out={out / 'run'}", "search.strategy=none"]) == 0
    seconds = [row["cpu_seconds"] for rows in unit_times(out / "run") for row in rows]
    return _rate(choice, sum(seconds[1:]))


SIDES = {"diffusers": drawn_by_diffusers, "generate": drawn_by_generate}


def searched(choice: argparse.Namespace, root: Path) -> list[str]:
    """Score and operations an image of best_of_n and parm -> lines of a table and what it says."""
    from jobs import generate, metrics

    runs, judge = {}, ["judge.kind=llava", f"judge.options.checkpoint={choice.judge}", "judge.options.dtype=float32"]
    everything = PROMPTS.read_text("utf-8").splitlines()
    spread = [
        everything[place * len(everything) // choice.prompts] for place in range(choice.prompts)
    ]  # over the tasks
    (root / "prompts.txt").write_text("\n".join(spread) + "\n", "utf-8")
    for strategy in ("best_of_n", "parm"):
        words = [
            *_words(choice, images=1),
            f"prompts={root / 'prompts.txt'}",
            f"search.strategy={strategy}",
            f"search.n={choice.search}",
        ]
        words += [*judge, f"out={root / strategy}"]
        assert run_command(generate, words) == 0
        runs[strategy] = list(read_generated(root / strategy))
    pools = np.array([[c.p_yes["outcome"] for c in row.candidates] for row in runs["best_of_n"]], dtype=float)
    curve = np.stack([best_of_k(pool, pool) for pool in pools])  # (prompts, k)
    of_one = np.array([row.cost.flops for row in runs["best_of_n"]]) / choice.search
    words = [f"images={root / 'parm'}", "metrics.vqa_score={}", "device=cpu", f"out={root / 'scores'}"]
    assert run_command(metrics, [*words, *judge]) == 0  # parm need not have asked about the image that is left
    score = np.array([row["scores"]["vqa_score"] for row in read_rows(root / "scores")], dtype=float)
    cost = np.array([row.cost.flops for row in runs["parm"]])
    single = of_one.mean()
    best = [At(float(k), _mean(curve[:, k - 1])) for k in range(1, choice.search + 1)]
    parm = At(float(cost.mean() / single), _mean(score))
    lines = ["| search | n | P(yes) of the chosen image | operations an image |", "|---|---|---|---|"]
    lines += [f"| best_of_n | {at.x:.0f} | {_spread(at.score)} | {at.x * single:.3g} |" for at in best]
    lines.append(f"| parm | {choice.search} | {_spread(parm.score)} | {cost.mean():.3g} |")
    if choice.figure:
        curves, dots = [Series("best_of_n", best)], [Dot(f"parm, {choice.search} candidates", parm, "parm")]
        title = f"A judge's P(yes) against cost, {len(score)} prompts"
        says = "P(yes) of the chosen image, with 95 % intervals"
        write_atomic(choice.figure, frontier_svg(curves, dots, title=title, score=says).encode())
    share = _resampled(lambda at: _share(curve[at], of_one[at], score[at], cost[at]), len(score))
    span = f"{share.estimate:.2f} ({share.low:.2f} to {share.high:.2f})"
    lines.append(f"\nparm takes {span} of best_of_n's operations at equal score, {len(score)} prompts")
    return lines


def _share(curve: np.ndarray, of_one: np.ndarray, score: np.ndarray, cost: np.ndarray) -> float:
    """parm's cost by what best_of_n takes for the same mean score; at most what all its candidates cost."""
    means = curve.mean(axis=0)
    needed = float(np.interp(score.mean(), means, np.arange(1, len(means) + 1)))
    return float(cost.mean() / (needed * of_one.mean()))


def _mean(values: np.ndarray) -> Interval:
    return _resampled(lambda at: float(values[at].mean()), len(values))


def _spread(found: Interval) -> str:
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def _resampled(statistic: Any, num: int) -> Interval:
    """A statistic of prompts with its bootstrap interval."""
    rng = np.random.default_rng(0)
    found = [statistic(rng.integers(0, num, num)) for _ in range(RESAMPLES)]
    return Interval(statistic(np.arange(num)), *np.quantile(found, [0.025, 0.975]).tolist())


def _prompts(choice: argparse.Namespace) -> Sequence[str]:
    return PROMPTS.read_text("utf-8").splitlines()[: choice.prompts]


def _words(choice: argparse.Namespace, images: int | None = None) -> list[str]:
    """Of `generate`: the same work as the plain loop."""
    return [
        *("tiny", f"prompts={PROMPTS}", "metadata=null", f"limit={choice.prompts}", f"unit_size={WARM}", "threads=1"),
        *("generator.kind=diffusion", f"generator.options.pipeline={choice.pipeline}", "device=cpu"),
        f"generator.options.paths_per_forward={choice.search or choice.batch}",
        f"images_per_prompt={images or choice.batch}",
        f"sampling={{scheduler: ddim, steps: {choice.steps}, guidance_scale: {choice.guidance}, "
        f"height: {choice.side}, width: {choice.side}}}",
    ]


def _rate(choice: argparse.Namespace, seconds: float) -> dict[str, float]:
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"images": (choice.prompts - WARM) * choice.batch, "cpu_seconds": seconds, "peak_mib": peak / 1024}


def _measured(choice: argparse.Namespace, side: str, root: Path) -> dict[str, Any]:
    """A process of its own."""
    result = root / "result.json"
    words = [f"--{key}={getattr(choice, key)}" for key in ("pipeline", "prompts", "batch", "steps", "guidance", "side")]
    command = [sys.executable, __file__, *words, "--only", side, "--result", str(result)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return read_json_object(result)


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pipeline", help="folder of diffusers; by default a small SDXL is made")
    options.add_argument("--prompts", type=int, default=16)
    options.add_argument("--batch", type=int, default=1, help="images a prompt")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--guidance", type=float, default=5.0)
    options.add_argument("--side", type=int, default=64, help="pixels")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--search", type=int, help="candidates")
    options.add_argument("--judge", default="shapes/judge")
    options.add_argument("--figure", type=Path, help="with --search: an SVG of score against cost")
    options.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    choice = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="genloop-teacher-") as place:
        root = Path(place)
        if choice.only:
            choice.result.write_text(json.dumps(SIDES[choice.only](choice, root)))
            return
        if choice.pipeline is None:
            from tests.worlds.tiny_diffusion import write_pipeline

            choice.pipeline = str(write_pipeline(root / "sdxl", xl=True))
        terminal.out(f"{cpu_model()}, {os.cpu_count()} cores, one thread, {package_versions()}")
        if choice.search:
            terminal.out("\n".join(searched(choice, root)))
            return
        _compare_rates(choice, root)


def _compare_rates(choice: argparse.Namespace, root: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(choice.repeats):
        for side, results in found.items():
            results.append(_measured(choice, side, root))
    terminal.out("| side | images a CPU-second, median (all) | peak memory, MiB |\n|---|---|---|")
    rates = {side: [one["images"] / one["cpu_seconds"] for one in results] for side, results in found.items()}
    for side, results in found.items():
        shown = ", ".join(f"{rate:.3g}" for rate in rates[side])
        peak = max(one["peak_mib"] for one in results)
        terminal.out(f"| {side} | {np.median(rates[side]):.3g} ({shown}) | {peak:.0f} |")
    ratio = np.median([ours / theirs for ours, theirs in zip(rates["generate"], rates["diffusers"])])
    terminal.out(f"\ngenerate draws {ratio:.2f} x as many (median of {choice.repeats} pairs)")


if __name__ == "__main__":
    main()
