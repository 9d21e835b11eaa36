"""Whether a judge learns from pairs of answers: a tiny InstructBLIP with fresh weights, beside a control.

    python -m benchmarks.judge_pairs --out runs/judge-pairs              # three seeds, about 9 CPU-minutes
    python -m benchmarks.judge_pairs --out runs/judge-pairs --seeds 0    # one of them

2,400 pairs about drawn objects: what the image shows, and the same with another colour or shape, asked in 256 ways.
All weights learn by Bradley-Terry; the control takes the same steps on labels drawn by chance. Measured are 300 pairs
of a fold that shares no question and no image with the training. What is finished stays finished.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.stats.intervals import Interval
from genloop.stats.over_seeds import over_prompts_and_seeds
from tests.worlds.response_pairs import WORDS, write_pairs
from tests.worlds.tiny_instructblip import instructblip_folder, scale_by_fan_in

ARMS = {"trained": (), "control": ("pairs.shuffle_labels=true",)}
VISION = {"hidden_size": 48, "intermediate_size": 96, "image_size": 24, "patch_size": 4}
QFORMER = {"hidden_size": 48, "intermediate_size": 96, "encoder_hidden_size": 48}
TEXT = {"hidden_size": 64, "intermediate_size": 128}
STEPS = 800
KEYS = (
    *("lora.rank=0", "lora.targets=[]", "merged=false", "vision_lr=null", "projector_lr=null", "qformer_lr=null"),
    *("pairs.num_folds=4", "chat.batch_size=16", f"train.num_steps={STEPS}", "train.lr=5e-4", "train.warmup_steps=100"),
    *(f"train.save_every={STEPS}", "train.log_every=50", "eval_every=200", "eval_chats=300"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found = parser.parse_args()
    pairs = found.out / "pairs/pairs.jsonl"
    if not pairs.is_file():
        write_pairs(pairs.parent, count=2400, seed=2)  # of seed 1 the learning rate was chosen
    for seed in found.seeds:
        for arm in ARMS:
            run_arm(found.out, pairs, arm, seed)
    print("\n".join(table(found.out, found.seeds)))


def run_arm(out: Path, pairs: Path, arm: str, seed: int) -> None:
    """One training, unless it is there."""
    start, run = out / f"start-{seed}", out / f"{arm}-{seed}"
    if not start.is_dir():
        parts = {"vision": VISION, "qformer": QFORMER, "text": TEXT, "side": 24}
        instructblip_folder(start, words=WORDS, seed=seed, change=partial(scale_by_fan_in, seed=seed), **parts)
    if not (run / "pairs.jsonl").is_file():
        words = [f"data.shapes.pairs.path={pairs}", f"start={start}", f"seed={seed}", f"out={run}", *KEYS, *ARMS[arm]]
        subprocess.run([sys.executable, "-m", "launch", "run", "train_vlm", "tiny_pairs", *words], check=True)


def table(out: Path, seeds: list[int]) -> list[str]:
    """Accuracies of the arms that are there, and their paired differences over images and seeds."""
    rows = {arm: [read(out / f"{arm}-{seed}") for seed in seeds if done(out, seed)] for arm in ARMS}
    if not rows["trained"]:
        return ["no seed has both arms"]
    clusters = [row["cluster"] for row in rows["trained"][0]]
    last = {arm: [[right(row["p"]) for row in run] for run in runs] for arm, runs in rows.items()}
    last["start"] = [[right(row["p_at_the_start"]) for row in run] for run in rows["trained"]]
    tags = ["pairs"] * len(clusters)
    lines = [f"{len(clusters)} pairs about {len(set(clusters))} images, {len(rows['trained'])} seeds"]
    for arm in ("start", "control", "trained"):
        lines.append(f"| {arm} | {words(over_prompts_and_seeds(last[arm], clusters, tags, 0))} |")
    for other in ("start", "control"):
        gaps = [[a - b for a, b in zip(*both)] for both in zip(last["trained"], last[other])]
        lines.append(f"| trained over {other} | {words(over_prompts_and_seeds(gaps, clusters, tags, 0))} |")
    return lines


def done(out: Path, seed: int) -> bool:
    return all((out / f"{arm}-{seed}/pairs.jsonl").is_file() for arm in ARMS)


def read(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "pairs.jsonl").read_text().splitlines()]


def right(chance: float) -> float:
    """1 where the better answer is found, half for a tie."""
    return float(chance > 0.5) + 0.5 * float(chance == 0.5)


def words(found: Interval) -> str:
    return f"{100 * found.estimate:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


if __name__ == "__main__":
    main()
