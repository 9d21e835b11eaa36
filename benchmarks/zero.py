"""What ranks hold and how long a step takes when moments, gradients and weights are sharded (train.zero_stage).

    python benchmarks/zero.py

Trains a LLaVA-OneVision of 33 million weights for 7 steps under each stage on 2 and on 4 ranks (gloo, one thread
each). Printed is the largest resident memory of a rank in the steps 3 to 6, less what the process held before it had a
model: weights, gradients, moments, what is gathered, buffers, and activations (small: one or two short rows, computed
again in the backward pass). Seconds are medians.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.distributed import World, process_group
from genloop.environment import cpu_model, package_versions
from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims
from genloop.registry import require

ROWS, LENGTH, STEPS, FIRST = 4, 16, 7, 3
SIZES = LlavaConfig(
    vision=VisionDims(384, 1536, 4, 6, 24, 4),
    text=TextDims(384, 1536, 8, 6, 6, 8192, 512),
    image_token_index=3,
)


def main() -> int:
    """Run every stage on both numbers of ranks, print a table -> exit code."""
    print(f"{cpu_model()}, {os.cpu_count()} cores, one thread a rank, {package_versions()}")
    print("| stage | " + " | ".join(f"{n} ranks: MB a rank | s a step" for n in (2, 4)) + " |\n|---|---|---|---|---|")
    for stage in range(4):
        cells = []
        for procs in (2, 4):
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={procs}"]
            # Blocks above 128 KiB go back to the system when they are freed, so resident memory is what is held.
            env = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
            done = subprocess.run(
                [*command, __file__, str(stage)], env=env, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                print(done.stderr, file=sys.stderr)
                return 1
            cells += done.stdout.strip().splitlines()[-1].split()
        print(f"| {stage} | {' | '.join(cells)} |", flush=True)
    return 0


def work(stage: int) -> None:
    """One rank: train, then rank 0 prints the largest memory of all ranks and its seconds a step."""
    import torch
    import torch.distributed as dist

    from genloop.models.llava.load import build_llava
    from genloop.training.loop import train
    from genloop.training.passes import checkpoint_activations
    from genloop.training.settings import LoopSettings
    from genloop.training.sharded import sharded_learner

    if stage:
        sharded_learner(stage)  # code is no part of what is measured
    if stage in (1, 2):
        require("deepspeed", "train")
    torch.set_num_threads(1)
    world = World.from_environment()
    with process_group(world), tempfile.TemporaryDirectory() as run:
        dist.barrier()
        before = _resident("VmRSS")
        peaks: list[int] = []
        seconds: list[float] = []
        model = build_llava(SIZES, seed=0)
        checkpoint_activations(model)
        settings = LoopSettings(num_steps=STEPS, rows_per_forward=2, save_every=STEPS, zero_stage=stage)
        train(_next_words(model, peaks, seconds), settings, Path(run), world)
        largest = torch.tensor(peaks[-1] - before)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        if world.rank == 0:
            print(int(largest) // 10**6, f"{statistics.median(seconds):.1f}")


def _next_words(model: Any, peaks: list[int], seconds: list[float]) -> Any:
    """The objective: next words of random text behind a white image; notes the peak and the time of every step."""
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F

    from genloop.models.llava.model import embed_tokens, image_features, language_hidden
    from genloop.training.task import Loss, Objective, Plan

    class NextWords(Objective[int, torch.Tensor]):
        def __init__(self) -> None:
            self.model, self.begun = model, 0.0

        def plan(self, step: int) -> Plan[int]:
            if step > FIRST:
                dist.barrier()
                seconds.append(time.perf_counter() - self.begun)
                peaks.append(_resident("VmHWM"))
            if step == FIRST:
                Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            dist.barrier()
            self.begun = time.perf_counter()
            return Plan(range(ROWS), float(ROWS * (LENGTH - 1)), step)

        def load(self, items: Sequence[int], plan: Plan[int]) -> torch.Tensor:
            generator = torch.Generator().manual_seed(plan.shared)
            return torch.randint(8192, (ROWS, LENGTH), generator=generator)[list(items)]

        def loss(self, batch: torch.Tensor) -> Loss:
            seen = image_features(model, torch.zeros(len(batch), 3, 24, 24))
            hidden = language_hidden(model, torch.cat([seen, embed_tokens(model, batch)], dim=1))
            logits = model.lm_head(hidden[:, -LENGTH:-1])
            total = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            return Loss(total, float(batch[:, 1:].numel()))

    return NextWords()


def _resident(key: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(int(sys.argv[1]))
    else:
        sys.exit(main())
