"""A UNet with depthwise convolutions against diffusers' own of equal size, and a perceptual loss against none.

    python -m benchmarks.small_diffusion --out runs/small-diffusion --procs 2    # three seeds
    python -m benchmarks.small_diffusion --out runs/small-diffusion --summary    # no run, only small_diffusion.md again

Arms are trainings of `train_diffusion shapes` on the same scenes: `stock` has diffusers' residual blocks, `depthwise`
ours at the same number of parameters, both with the squared error alone; `perceptual` is `depthwise` with features of
the VAE's encoder beside it. A seed draws weights, order and noise. What is finished stays finished. Measured are, on
what no training saw: the exact detector's verdicts on generated images, KID of these against new scenes, and, on new
scenes with the same noise for all arms, the squared error and two perceptual distances that no arm was trained on.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model, package_versions
from genloop.job import run_command
from genloop.reading import read_json
from genloop.rundir import write_atomic, write_json
from genloop.runs.evaluations import read_evaluation
from genloop.runs.lineage import cpu_seconds
from genloop.stats.intervals import Interval
from genloop.stats.latency import latency
from genloop.stats.over_seeds import over_prompts_and_seeds
from genloop.stats.rates import rates
from jobs import evaluate, generate, make_diffusion, make_prompts, make_shapes, train_diffusion

ARMS = {
    "stock": ("objective=sft", "model.kind=stock", "model.channels=[40]"),
    "depthwise": ("objective=sft", "model.channels=[48]"),
    "perceptual": ("objective=perceptual", "model.channels=[48]", "perceptual.vae=4"),
}
CONTRASTS = (("depthwise", "stock"), ("perceptual", "depthwise"))
TASKS = "task_weights=[2,1,0,0,0,0]"  # single_object and two_object
NUM_PROMPTS, NUM_SCENES, KID_SCENES = 100, 256, 1024
TIMESTEPS = (100, 300, 500, 700, 900)
MEASURES = {
    "error": "squared error of the output",
    "pyramid": "random-convolution features of the decoded prediction",
    "ms_ssim": "1 - MS-SSIM of the decoded prediction",
}


def prepare(out: Path, seeds: Sequence[int], steps: int) -> None:
    """Scenes, prompts, fresh pipelines, and the cache of latents, once for all."""
    _job(make_shapes, "pixels", out / "scenes", TASKS, "num_samples=4096", "seed=2")
    _job(make_shapes, "pixels", out / "new-scenes", TASKS, f"num_samples={KID_SCENES}", "seed=3")
    _job(make_prompts, "shapes_test", out / "prompts", f"num_prompts={NUM_PROMPTS}", "repeat=true")
    for seed in seeds:
        _job(make_diffusion, "shapes_student", out / f"fresh-{seed}", f"seed={seed}")
    train(out, "depthwise", seeds[0], 1, out / "first-step")


def train(out: Path, arm: str, seed: int, steps: int, run: Path) -> None:
    """One training."""
    words = (f"start={out}/fresh-{seed}/pipeline", f"shards={out}/scenes/shards", f"cache={out}/cache", f"seed={seed}")
    few = (f"train.num_steps={steps}", "train.batch_size=16", "train.warmup_steps=50")
    _job(train_diffusion, "shapes", run, *words, *few, *ARMS[arm])


def work(out: Path, arm: str, seed: int, steps: int) -> None:
    """Train an arm with a seed, draw, judge, measure."""
    runs = {stage: out / f"{stage}-{arm}-{seed}" for stage in ("train", "images", "verdicts")}
    train(out, arm, seed, steps, runs["train"])
    pipeline, prompts = runs["train"] / "pipeline", out / "prompts"
    files = (f"prompts={prompts}/generation_prompts.txt", f"metadata={prompts}/evaluation_metadata.jsonl")
    words = (f"generator.options.pipeline={pipeline}", f"limit={2 * NUM_PROMPTS}", "sampling.steps=10")
    _job(generate, "shapes_diffusion", runs["images"], *files, *words)
    _job(evaluate, "shapes", runs["verdicts"], f"images={runs['images']}", "expect.on_missing=report")
    found = held_out(pipeline, out / "new-scenes/shards") | {"kid": distance(runs["images"], out / "new-scenes/shards")}
    write_json(out / f"measured-{arm}-{seed}.json", found)


def _job(job: Any, preset: str, run: Path, *words: str) -> None:
    if not (run / "done.json").is_file() and run_command(job, [preset, *words, f"out={run}"]):
        raise SystemExit(f"{run} failed")


def held_out(pipeline: Path, shards: Path) -> dict[str, Any]:
    """Means over `TIMESTEPS` of `MEASURES`, a scene each, with the captions; noise is keyed by scene and timestep."""
    import torch

    from genloop.data.latents.buckets import Size
    from genloop.data.latents.examples import CaptionedImages
    from genloop.data.shards import Shards
    from genloop.models.diffusion.config import check_diffusion_folder
    from genloop.models.diffusion.load import decode_latents, load_diffusion
    from genloop.models.diffusion.schedule import NoiseSchedule
    from genloop.models.diffusion.student import encode_pixels
    from genloop.models.perceptual.features import ConvPyramid, feature_distance, ms_ssim_distance
    from genloop.records import Seed
    from genloop.sampling.noise import gaussian

    base, examples = check_diffusion_folder(pipeline), CaptionedImages(Shards(shards), [Size(24, 24)])
    denoiser, schedule = load_diffusion(base, grid=base.grid(None, None)), NoiseSchedule(base.scheduler)
    pyramid, found = ConvPyramid(123), dict[str, list[float]]((name, []) for name in MEASURES)
    captions = [examples.captions[examples[row].caption] for row in range(NUM_SCENES)]
    for row, caption in enumerate(captions):
        pixels = examples.pixels(row)
        latent = torch.from_numpy(encode_pixels(denoiser, pixels)[0])
        times = torch.tensor(TIMESTEPS)
        latents, shape = latent.expand(len(times), -1, -1, -1), tuple(latent.shape)
        noise = torch.stack([gaussian(Seed(0, row, 0, 0), shape, step=t, round=0, purpose="test") for t in TIMESTEPS])
        noised = schedule.noised(latents, noise, times)
        output = denoiser.predict(noised, times, [denoiser.encode(caption)] * len(times))
        shown = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.inference_mode():
            ours = decode_latents(denoiser.pipeline.vae, schedule.split(noised, output, times)[0])
            values = {
                "error": (output - schedule.target(latents, noise, times)).square().mean((1, 2, 3)),
                "pyramid": feature_distance(pyramid(ours), pyramid(shown.expand_as(ours))),
                "ms_ssim": ms_ssim_distance(ours, shown.expand_as(ours)),
            }
        for name, value in values.items():
            found[name].append(float(value.mean()))
    return {"captions": captions, **found}


def distance(images: Path, shards: Path) -> list[float]:
    """KID by a random projection of 12 x 12 pixels -> the distance and its interval."""
    from genloop.data.image_reader import read_image
    from genloop.data.latents.buckets import Size
    from genloop.data.latents.examples import CaptionedImages
    from genloop.data.shards import Shards
    from genloop.metrics.features import PixelExtractor, PixelOptions
    from genloop.metrics.set_distances import kid

    examples = CaptionedImages(Shards(shards), [Size(24, 24)])
    drawn = sorted((images / "images").rglob("*.png"))
    extractor = PixelExtractor(PixelOptions(side=12, size=128))
    ours = extractor.embed([read_image(path) for path in drawn])
    theirs = extractor.embed([examples.pixels(row) for row in range(len(examples))])
    found = kid(ours, np.arange(len(ours)), theirs, np.arange(len(theirs)), 0, subset_size=len(ours) // 2)
    return [found.value, found.low, found.high]


def costs(pipeline: Path) -> str:
    """Parameters, operations and latency of a pass of the UNet, as cells of a table."""
    import torch

    from genloop.models.common.measure import size_of, time_calls
    from genloop.models.diffusion.config import check_diffusion_folder
    from genloop.models.diffusion.load import load_diffusion

    base = check_diffusion_folder(pipeline)
    denoiser = load_diffusion(base, grid=base.grid(None, None))
    condition, noise = denoiser.encode("a photo of a star"), torch.zeros(1, denoiser.channels, *denoiser.grid)
    seconds = time_calls(lambda: denoiser.predict(noise, torch.tensor([500]), [condition]), warmup=20, repeats=300)
    p50, p95 = latency(seconds).p50, latency(seconds).p95
    spans = " | ".join(f"{1e3 * p.estimate:.2f} ({1e3 * p.low:.2f} to {1e3 * p.high:.2f})" for p in (p50, p95))
    return f"{size_of(denoiser.pipeline.unet).parameters:,} | {denoiser.flops_per_pass / 1e6:.1f} | {spans}"


def markdown(out: Path, seeds: Sequence[int], command: str) -> str:
    """benchmarks/small_diffusion.md from all that is finished."""
    found = {
        arm: {seed: read_json(file) for seed in seeds if (file := out / f"measured-{arm}-{seed}.json").is_file()}
        for arm in ARMS
    }
    arms = [arm for arm in ARMS if found[arm]]
    config = read_json(out / f"train-{arms[0]}-{min(found[arms[0]])}/run.json")["keys"]
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    told = ", ".join(f"{arm} (`{' '.join(ARMS[arm])}`)" for arm in arms)
    cost_rows = (f"| {arm} | {costs(out / f'train-{arm}-{min(found[arm])}/pipeline')} |" for arm in arms)
    lines = [
        "# A small diffusion model: depthwise convolutions and a perceptual loss",
        "",
        f"    {command}",
        "",
        f"{cpu_model()}, {versions}. Arms are trainings of `train_diffusion shapes`: {told}; "
        f"{config['train.num_steps']} steps of {config['train.batch_size']} on 4,096 scenes of single_object and "
        "two_object, text encoder included. Factors, sizes and steps were set beforehand, no run was chosen by its "
        "result. Differences are paired by prompt and noise, or by scene and noise, with 95 % intervals of a bootstrap "
        "over sentences and seeds.",
        "",
        "One pass of the UNet, one row of 6 x 6 cells, one thread beside other work; CPU-minutes of one training:",
        "",
        "| arm | parameters | MFLOP | ms, median (95 %) | ms, 95th percentile (95 %) | CPU-minutes |",
        "|---|---|---|---|---|---|",
        *(f"{row} {_minutes(out, arm, seeds)} |" for arm, row in zip(arms, cost_rows, strict=True)),
        "",
        f"{2 * NUM_PROMPTS} generated images a seed, judged by the exact detector (mean of two tasks, %, over "
        f"sentences); KID x 1000 of a random projection of their pixels against {KID_SCENES:,} new scenes; "
        f"{NUM_SCENES} new scenes at {len(TIMESTEPS)} timesteps. Of distances less is better.",
        "",
        "| arm | seed | score (95 %) | KID x 1000 (95 %) | " + " | ".join(MEASURES.values()) + " |",
        "|---|---|---|---|---|---|---|",
        *(_row(out, arm, seed, found[arm][seed]) for arm in arms for seed in found[arm]),
        "",
        "| difference | of | mean (95 %) | each seed | seeds, n of each |",
        "|---|---|---|---|---|",
        *(line for pair in CONTRASTS for line in _contrasts(out, found, *pair)),
    ]
    return "\n".join(lines) + "\n"


def _minutes(out: Path, arm: str, seeds: Sequence[int]) -> str:
    spent = [cpu_seconds(run) for seed in seeds if (run := out / f"train-{arm}-{seed}").is_dir()]
    return f"{np.mean([seconds or 0 for seconds in spent]) / 60:.1f}"


def _row(out: Path, arm: str, seed: int, found: dict[str, Any]) -> str:
    images = read_evaluation(out / f"verdicts-{arm}-{seed}").images
    correct, prompts, tags = zip(*((float(i.correct), i.prompt, i.tag) for i in images))
    score = rates(list(correct), list(prompts), list(tags)).overall.interval
    kid = "{:.2f} ({:.2f} to {:.2f})".format(*(1e3 * value for value in found["kid"]))
    means = " | ".join(f"{np.mean(found[name]):.4f}" for name in MEASURES)
    return f"| {arm} | {seed} | {_span(score, 100, '.1f')} | {kid} | {means} |"


def _contrasts(out: Path, found: dict[str, dict[int, Any]], arm: str, base: str) -> Iterator[str]:
    if not (seeds := sorted(found[arm].keys() & found[base].keys())):
        return
    images = {(a, s): read_evaluation(out / f"verdicts-{a}-{s}").images for a in (arm, base) for s in seeds}
    first, captions = images[arm, seeds[0]], found[arm][seeds[0]]["captions"]

    def correct(name: str, seed: int) -> np.ndarray:
        return np.array([100 * float(image.correct) for image in images[name, seed]])

    def measured(measure: str, name: str, seed: int) -> np.ndarray:
        return np.array(found[name][seed][measure])

    prompts, tags = [image.prompt for image in first], [image.tag for image in first]
    yield _contrast(f"{arm} - {base} | score, points", correct, (arm, base), seeds, prompts, tags, "+.1f")
    alike = ["scenes"] * len(captions)
    for name, title in MEASURES.items():
        of = partial(measured, name)
        yield _contrast(f"{arm} - {base} | {title}", of, (arm, base), seeds, captions, alike, "+.4f")


def _contrast(
    title: str,
    of: Callable[[str, int], np.ndarray],
    arms: tuple[str, str],
    seeds: Sequence[int],
    clusters: Sequence[str],
    tags: Sequence[str],
    form: str,
) -> str:
    values = np.stack([of(arms[0], seed) - of(arms[1], seed) for seed in seeds])
    span = _span(over_prompts_and_seeds(values, clusters, tags, 0), 1, form)
    alone = [over_prompts_and_seeds(row[None], clusters, tags, 0, num_resamples=10).estimate for row in values]
    return f"| {title} | {span} | {', '.join(f'{one:{form}}' for one in alone)} | {len(seeds)}, {values.shape[1]} |"


def _span(found: Interval, factor: float, form: str) -> str:
    return "{} ({} to {})".format(*(f"{factor * value:{form}}" for value in (found.estimate, found.low, found.high)))


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small-diffusion"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--procs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--summary", action="store_true", help="run nothing")
    parser.add_argument("--only", nargs=2, metavar=("ARM", "SEED"), help="one training, without the table")
    found = parser.parse_args()
    if found.only:
        work(found.out, found.only[0], int(found.only[1]), found.steps)
        return
    if not found.summary:
        prepare(found.out, found.seeds, found.steps)
        again = [
            sys.executable,
            "-m",
            "benchmarks.small_diffusion",
            "--out",
            str(found.out),
            "--steps",
            str(found.steps),
        ]
        parts = [[*again, "--only", arm, str(seed)] for seed in found.seeds for arm in ARMS]
        with ThreadPoolExecutor(found.procs) as pool:
            codes = list(pool.map(lambda command: subprocess.run(command, check=False).returncode, parts))
        if any(codes):
            raise SystemExit(max(codes))
    command = " ".join(["python -m benchmarks.small_diffusion", *sys.argv[1:]]).replace(" --summary", "")
    write_atomic(found.table, markdown(found.out, found.seeds, command).encode())


if __name__ == "__main__":
    main()
