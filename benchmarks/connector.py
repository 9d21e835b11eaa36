"""Whether a connector learns what a picture shows: pictures of the embedded world drawn back from their image tokens.

    python -m benchmarks.connector --out runs/connector                  prints benchmarks/connector.md

A Qwen2vl-Flux of stock classes with random weights and the VAE of the embedded world learns connector and transformer
on scenes (`train_connector`); then held-out scenes are drawn as variations from their tokens. SSIM with the scene
itself is compared with that of another scene (control) and with the same before the training; 95 % intervals by
scene.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.data.latents.buckets import Size
from genloop.data.latents.examples import CaptionedImages
from genloop.data.shards import Shards
from genloop.environment import cpu_model, package_versions
from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.structure import ssim
from genloop.models.flux_edit import load
from genloop.models.flux_edit.drawing import Drawing
from genloop.models.flux_edit.encode import Conditions, connect, picture_tokens, pooled_text
from genloop.models.flux_edit.needs import COMPONENTS
from genloop.stats.resampling import cluster_bootstrap
from tests.worlds import tiny_flux_edit

ROOT = Path(__file__).resolve().parent.parent
SIDE, TOKENS, STEPS, NUM = 24, 16, 20, 200
FLUX = {"in_channels": 32, "num_layers": 2, "num_single_layers": 4, "num_attention_heads": 4}


def write_folder(folder: Path) -> Path:
    """The tiny twin with a larger transformer and the shipped VAE."""
    tiny_flux_edit.write_tiny_flux_edit(folder, flux=FLUX)
    shutil.rmtree(folder / "flux" / "vae")
    shutil.copytree(ROOT / "ckpts" / "shapes" / "vae", folder / "flux" / "vae")
    config = folder / "flux" / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"shift_factor": 0.0}))
    return folder


def run(*words: str) -> None:
    """A job, as its own process."""
    subprocess.run([sys.executable, "-m", "launch", "run", *words], check=True, cwd=ROOT)


def drawn(folder: Path, pictures: list[np.ndarray], trained: Path | None) -> np.ndarray:
    """Variations of pictures from their tokens: (N, H, W, 3) uint8."""
    qwen = load.load_qwen(folder, dtype=torch.float32, device="cpu")
    connector = load.load_connector(folder, None if trained is None else trained / "connector.pt")
    drawer = load.load_drawer(
        folder,
        [name for name in COMPONENTS if name not in ("controlnet", "t5_embedder")],
        dtype="float32",
        device="cpu",
        transformer=None if trained is None else trained / "transformer",
    )
    pooled = pooled_text(*load.load_text_encoder(folder, "clip", dtype=torch.float32, device="cpu"))
    wanted, found = Drawing("variation", (SIDE, SIDE), steps=STEPS, guidance_scale=1.0), []
    for number, picture in enumerate(pictures):
        tokens = picture_tokens(*qwen, picture, num_tokens=TOKENS)
        conditions = Conditions(connect(connector, tokens, None), None, None, pooled, tuple(tokens.shape[:2]))
        image = drawer.decode(wanted, drawer.draw(wanted, conditions, [number]))[0]
        found.append((image.permute(1, 2, 0) * 255).round().byte().numpy())
    return np.stack(found)


def row(name: str, values: np.ndarray) -> str:
    """A line of the table."""
    mean = cluster_bootstrap(values.tolist(), range(len(values)), 0)
    return f"| {name} | {mean.estimate:+.3f} ({mean.low:+.3f} to {mean.high:+.3f}) |"


def main() -> None:
    """Make, train, draw, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/connector"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--scenes", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out
    folder = out / "checkpoint" if (out / "checkpoint").is_dir() else write_folder(out / "checkpoint")
    scenes = (f"num_samples={options.scenes}", "unit_size=1024", "tokenizer=null", "with_images=true")
    run("make_shapes", "shapes", f"out={out / 'scenes'}", *scenes)
    run("make_shapes", "shapes", f"out={out / 'held-out'}", f"num_samples={NUM}", *scenes[2:], "seed=1")
    words = [f"start={folder}", "new=true", "parts=[connector,transformer]", f"resolution={SIDE}"]
    words += [f"image_tokens={TOKENS}", "val_share=0.02", "eval_every=500", f"train.num_steps={options.steps}"]
    words += ["train.batch_size=64", "train.lr=0.002", "train.warmup_steps=50", "train.save_every=1000"]
    run("train_connector", "tiny", f"shards={out / 'scenes' / 'shards'}", f"out={out / 'trained'}", *words)
    held_out = CaptionedImages(Shards(out / "held-out" / "shards"), [Size(SIDE, SIDE)], needs_captions=False)
    pictures = [held_out.pixels(position) for position in range(NUM)]
    own, other = Pixels(np.stack(pictures)), Pixels(np.stack(pictures[1:] + pictures[:1]))
    after, before = (Pixels(drawn(folder, pictures, place)) for place in (out / "trained", None))
    metrics = [json.loads(line) for line in (out / "trained" / "metrics.jsonl").read_text().splitlines()]
    losses = [(m["step"], m["val_loss"], m["val_loss_error"]) for m in metrics if "val_loss" in m]
    seconds = sum(m.get("cpu_seconds", 0) for m in metrics)
    mine, theirs, past = ssim(after, own), ssim(after, other), ssim(before, own)
    print("# A connector learns what a picture shows\n\n    python -m benchmarks.connector --out runs/connector\n")
    print(f"{cpu_model()}, {', '.join(f'{k} {v}' for k, v in package_versions().items())}.")
    print(" ".join((__doc__ or "").split("\n\n")[-1].split()))
    print(
        f"\n{options.scenes} scenes, {options.steps} steps of 64, {seconds:.0f} CPU-seconds; {NUM} held-out scenes.\n"
    )
    print("| step | loss of held-out pictures (standard error) |\n|---|---|")
    print("\n".join(f"| {step} | {loss:.4f} ({error:.4f}) |" for step, loss, error in losses))
    print("\n| SSIM | mean (95 %) |\n|---|---|")
    print(row("with the scene, before", past), row("with the scene, after", mine), sep="\n")
    print(row("with another scene, after (control)", theirs), row("after - before", mine - past), sep="\n")
    print(row("the scene - another scene", mine - theirs))


if __name__ == "__main__":
    main()
