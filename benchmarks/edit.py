"""What `edit` saves against a plain loop over the stock pipelines: CPU seconds an image, weights alive at a time.

    python -m benchmarks.edit --out runs/edit-benchmark             prints benchmarks/edit.md

The same requests (variations with a prompt), checkpoint, steps and noise in every arm, loading included:
plain       one image at a time as the published script does: processor made anew, encoded, drawn by FluxPipeline, saved
edit        the job, memory=all; what is encoded is kept for all images of a request
stages      the job, memory=stages: encoders leave before the transformer comes
encoded     the job on a run whose conditions are there already
Arms take turns, in an order that each round turns; ratios are paired by round. Images have to be those of `plain`, to
one level of 255.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genloop.environment import cpu_model, package_versions
from genloop.job import run_command
from genloop.models.flux_edit import encode, load
from genloop.models.flux_edit.embedder import prompt_embeddings
from genloop.records import Seed
from genloop.sampling.noise import torch_seed
from genloop.stats.resampling import cluster_bootstrap
from jobs import edit
from tests.worlds.tiny_flux_edit import write_tiny_flux_edit

FLUX = {"num_layers": 2, "num_single_layers": 4}
SIDE, TOKENS = 128, 256
ARMS = ("plain", "edit", "stages", "encoded")


def most_alive(work: Callable[[], object]) -> int:
    """The most bytes of weights that are alive after any of the loads of some work; its time is not measured."""
    originals = {name: getattr(load, name) for name in ("load_qwen", "load_text_encoder", "load_drawer")}
    sizes: list[int] = []

    def watched(loading: Callable[..., Any]) -> Callable[..., Any]:
        def load_and_count(*args: Any, **more: Any) -> Any:
            found = loading(*args, **more)
            gc.collect()
            alive = {x.data_ptr(): x.nbytes for x in gc.get_objects() if type(x) is torch.nn.Parameter}
            sizes.append(sum(alive.values()))
            return found

        return load_and_count

    for name, loading in originals.items():
        setattr(load, name, watched(loading))
    try:
        work()
    finally:
        for name, loading in originals.items():
            setattr(load, name, loading)
    return max(sizes, default=0)


def plain(folder: Path, requests: list[dict[str, Any]], out: Path, steps: int) -> list[np.ndarray]:
    """One image at a time -> the pixels of each image."""
    import diffusers
    from transformers import AutoImageProcessor

    qwen, _, tokenizer = load.load_qwen(folder, dtype=torch.float32, device="cpu")
    t5, clip = (load.load_text_encoder(folder, name, dtype=torch.float32, device="cpu") for name in ("t5", "clip"))
    connector = load.load_connector(folder)
    drawer = load.load_drawer(folder, ["t5_embedder"], dtype="float32", device="cpu")
    unused = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = diffusers.FluxPipeline(drawer.scheduler, drawer.vae, transformer=drawer.transformer, **unused)
    pipe.set_progress_bar_config(disable=True)
    found: list[np.ndarray] = []
    for index, request in enumerate(requests):
        for sample in range(request["image_count"]):
            picture = np.asarray(Image.open(request["input_image"]).convert("RGB"))
            processor = AutoImageProcessor.from_pretrained(folder / "qwen2-vl", local_files_only=True)
            tokens = encode.picture_tokens(qwen, processor, tokenizer, picture, num_tokens=TOKENS)
            image, text = encode.connect(connector, tokens, None), encode.text_tokens(*t5, [request["prompt"]])
            drawer.transformer.context_embedder.num_image_tokens = len(image)
            seed = torch_seed(Seed(0, index, sample, 0))
            with torch.inference_mode():
                (drawn,) = pipe(
                    prompt_embeds=prompt_embeddings(image[None], text),
                    pooled_prompt_embeds=encode.pooled_text(*clip)[None],
                    width=SIDE,
                    height=SIDE,
                    num_inference_steps=steps,
                    guidance_scale=3.5,
                    generator=[torch.Generator().manual_seed(seed)],
                ).images
            drawn.save(out / f"{index:05d}-{sample}.png")
            found.append(np.asarray(drawn))
    return found


def by_job(folder: Path, work: Path, out: Path, steps: int, memory: str) -> list[np.ndarray]:
    """The job -> the pixels of each image."""
    words = ["tiny", f"requests={work}", "input_image=null", f"checkpoint={folder}", f"out={out}", f"memory={memory}"]
    words += [f"steps={steps}", f"image_tokens={TOKENS}", f"max_pixels={SIDE * SIDE}", "unit_size=64"]
    assert run_command(edit, words) == 0
    return [np.asarray(Image.open(file)) for file in sorted(out.glob("images/*/samples/*.png"))]


def write_requests(out: Path, requests: int, images: int) -> tuple[Path, list[dict[str, Any]]]:
    """Pictures of noise and the work list."""
    found = []
    for number in range(requests):
        file = out / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        found.append({"input_image": str(file), "prompt": f"number {number}", "image_count": images})
    (out / "work.jsonl").write_text("".join(json.dumps(request) + "\n" for request in found))
    return out / "work.jsonl", found


def main() -> None:
    """Rounds of all arms, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/edit-benchmark"))
    for name, default in (("rounds", 5), ("requests", 4), ("images", 4), ("steps", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    folder = write_tiny_flux_edit(options.out / "checkpoint", flux=FLUX)
    work, requests = write_requests(options.out, options.requests, options.images)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}

    def draw(arm: str, out: Path) -> list[np.ndarray]:
        out.mkdir()
        if arm == "encoded":
            shutil.copytree(options.out / "edit" / "conditions", out / "conditions")
        if arm == "plain":
            return plain(folder, requests, out, options.steps)
        return by_job(folder, work, out, options.steps, "stages" if arm == "stages" else "all")

    weights = {arm: most_alive(partial(draw, arm, options.out / arm)) for arm in ARMS}  # warms up, too
    wanted = None
    for number in range(options.rounds):
        turn = number % len(ARMS)
        for arm in (*ARMS[turn:], *ARMS[:turn]):
            gc.collect()
            began = time.process_time()
            images = draw(arm, options.out / f"{arm}{number}")
            seconds[arm].append((time.process_time() - began) / len(images))
            wanted = wanted or images
            off = max(np.abs(one.astype(int) - other).max() for one, other in zip(images, wanted, strict=True))
            assert off <= 1, f"{arm} drew other images: {off} levels"  # 1: the last bit before rounding
    print(report(seconds, weights, options))


def report(seconds: dict[str, list[float]], weights: dict[str, int], options: argparse.Namespace) -> str:
    """The table, and where it was measured."""
    lines = ["| arm | CPU seconds an image | plain / arm (95 %) | weights alive |", "|---|---|---|---|"]
    for arm in ARMS:
        ratios = [one / other for one, other in zip(seconds["plain"], seconds[arm])]
        mean = cluster_bootstrap(ratios, range(len(ratios)), 0)
        ratio = f"{mean.estimate:.2f} ({mean.low:.2f} to {mean.high:.2f})"
        lines.append(f"| {arm} | {np.mean(seconds[arm]):.3f} | {ratio} | {weights[arm] / 1e6:.2f} MB |")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = f"{options.requests} requests x {options.images} images x {options.steps} steps, {options.rounds} rounds"
    return "\n".join(
        [f"{about}; commit {commit}; {cpu_model()}, {os.cpu_count()} cores, {package_versions()}", "", *lines]
    )


if __name__ == "__main__":
    main()
