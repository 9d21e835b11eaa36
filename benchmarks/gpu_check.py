"""What only a GPU can show, in one short run: results against the CPU's, half precision, kernels, time and memory.

    python benchmarks/gpu_check.py > gpu_check.md           at most 9 minutes on one H100 or H200
    python benchmarks/gpu_check.py --device cpu             the same rows on a CPU, with a small sampler: under a minute
    python benchmarks/gpu_check.py --only sampler           some of: tokens judge losses memory sampler machine
                                                      generation judging seeing checkpoints

Prints a table in markdown; the exit code is 1 when a row with a limit does not hold. Steps are those of 64 guided paths
of eight prompts; on a GPU the sampler has the published sizes with random weights. A launch is a kernel or a graph that
the host starts; on a CPU, an operator that writes memory.
"""

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gpu_speed import LAUNCHES, SPEED, Row, timed
from benchmarks.showo_decode import REDUCED, Letters
from benchmarks.showo_launches import PROMPTS, Operations
from ckpts.resolve import resolve
from genloop.distributed import World
from genloop.environment import cpu_model, git_state, package_versions
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.models.showo.config import ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.records import Seed, unpack_tokens
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.shapes.prompts import prompt_set
from genloop.training.replicated import Replicated
from genloop.training.settings import TrainSettings
from genloop.training.task import Loss, MicroBatch, Objective, Plan, Step
from jobs import generate, train_judge, train_showo, train_tokenizer
from tests.worlds.memory_counter import MemoryCounter

ROOT = Path(__file__).resolve().parent.parent
PATHS, STEPS = 64, 18


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, print each row when it is known -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--compile", action="store_true", help="also the sampler in CUDA graphs, minutes more")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS), metavar="CHECK")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --device cpu runs the same rows on the CPU")
    os.chdir(ROOT)
    torch.set_num_threads(1)
    state = git_state(ROOT) or {"commit": "unknown", "dirty": False}
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"{cpu_model()}, one thread"
    print(f"`{' '.join(['python', *sys.argv])}`, commit {state['commit'][:10]}{' with changes' * state['dirty']}")
    print(f"{name}; {', '.join(f'{key} {value}' for key, value in package_versions().items())}\n")
    print("| | check | found | wanted |\n|---|---|---|---|")
    failed = False
    with tempfile.TemporaryDirectory(prefix="genloop-gpu-") as folder:
        for check in options.only:
            for row in CHECKS[check](options.device, Path(folder), compiled=options.compile):
                failed |= row.holds is False
                verdict = {None: "", True: "PASS", False: "FAIL"}[row.holds]
                print(f"| {verdict} | {row.check} | {row.found} | {row.wanted} |", flush=True)
    return int(failed)


def tokens(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """`generate tiny` on both devices: one draw that falls on the other side changes what is drawn after it."""
    words = ["tiny", "limit=6", "sampling.padded=true"]
    expected = tokens_of(folder / "cpu", [*words, "device=cpu"])
    for dtype, wanted in (("float32", 0.9), ("bfloat16", None)):
        found = tokens_of(folder / dtype, [*words, f"device={device}", f"generator.options.dtype={dtype}"])
        share = float((found == expected).mean())
        limit = "-" if wanted is None else f"at least {wanted:.0%}"
        yield Row(
            f"tokens of the tiny preset as on the CPU, {dtype}", f"{share:.1%}", limit, wanted and share >= wanted
        )


def tokens_of(out: Path, words: list[str]) -> np.ndarray:
    """Run generate -> (images, n) tokens."""
    run(generate, [*words, f"out={out}"])
    return np.stack([unpack_tokens(row["tokens"]) for row in read_rows(out)])


def run(job: ModuleType, words: list[str]) -> None:
    """A job that has to end well."""
    with contextlib.redirect_stdout(sys.stderr):
        code = run_command(job, words)
    if code:
        sys.exit(f"{job.__name__} {' '.join(words)} ended with {code}")


def judge(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """The shipped judge on noise of many colours."""
    prompts = list(prompt_set("test", 3, 2))
    images = torch.rand(len(prompts), 3, 48, 48, generator=torch.Generator().manual_seed(0))
    settings = JudgeSettings(kind="llava", options={"checkpoint": "shapes/judge"})
    one, other = (build_judge(settings, resolve, device=d).p_yes("outcome", prompts, images) for d in ("cpu", device))
    difference = float((one - other.cpu()).abs().max())
    yield Row("P(yes) of the judge, largest difference", f"{difference:.1e}", "at most 1e-3", difference <= 1e-3)


def losses(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Ten steps of every tiny training on both devices."""
    for job in (train_showo, train_tokenizer, train_judge):
        for precision, limit in (("fp32", 1e-3), ("bf16", 0.1)):
            words = ["tiny", "train.num_steps=10", "train.log_every=1", f"train.precision={precision}"]
            name = job.__name__.rpartition(".")[2]
            found = []
            for place in ("cpu", device):
                out = folder / f"{name}-{precision}-{len(found)}"
                run(job, [*words, f"train.device={place}", f"out={out}"])
                lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
                found.append(np.array([line["loss"] for line in lines if "loss" in line]))
            worst = float(np.abs(found[1] / found[0] - 1).max())
            yield Row(f"losses of {name}, {precision}, worst", f"{worst:.1e}", f"at most {limit:.0e}", worst <= limit)


class Wide(Objective[int, Tensor]):
    """Weights with next to no activations."""

    def __init__(self, device: str, width: int) -> None:
        self.width = width
        self.model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(16)]).to(device)

    def plan(self, step: int) -> Plan[int]:
        """One row."""
        return Plan([0], 1.0)

    def load(self, items: Any, plan: Plan[int]) -> Tensor:
        """The row."""
        return torch.zeros(1, self.width)

    def loss(self, batch: Tensor) -> Loss:
        """Any."""
        return Loss(self.model(batch).float().sum(), 1.0)


def memory_of_training(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Bytes a weight at the most, which docs/training.md has as 20: AdamW's step."""
    width = 2048 if device == "cuda" else 128
    for precision in ("fp32", "bf16"):

        def steps(precision: str = precision) -> int:
            learner = Replicated(Wide(device, width), TrainSettings(precision=precision), folder, World())
            for number in (1, 2):
                batches = iter([MicroBatch(torch.zeros(1, width, device=device), 0, is_last=True)])
                step = Step(number, 1e-3, 1.0, 1, batches)
                learner.add_up(step)
                learner.step(step)
            return sum(parameter.numel() for parameter in learner.model.parameters())

        peak, weights = peak_bytes(device, steps)
        each = peak / weights
        yield Row(f"bytes a trained weight, {precision}, peak", f"{each:.1f}", "at most 21", each <= 21)


def peak_bytes(device: str, work: Callable[[], Any]) -> tuple[int, Any]:
    """The most bytes of tensors that lived at a time during some work, above what was there -> them, its result."""
    gc.collect()
    if device == "cpu":
        with MemoryCounter() as counter:
            result = work()
            return counter.peak, result
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = work()
    return torch.cuda.max_memory_allocated() - before, result


def sampler(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Time, launches and memory of a step, rows grouped by the length of their text and padded; decoding."""
    full = device == "cuda"
    config = ShowOConfig() if full else ShowOConfig(256, 16, 1000, phi=REDUCED)
    magvit = MagvitConfig() if full else MagvitConfig(num_bits=8, width=8, num_groups=4, resolution=64)
    dtype = torch.bfloat16 if full else torch.float32
    model = build_showo(config, seed=1, dtype=dtype, device=device, text_tokenizer=Letters()).eval()
    pixels = build_magvit2(magvit, seed=2, device=device).eval()
    ways: list[tuple[str, dict[str, Any]]] = [("grouped", {"padded": False}), ("padded", {"padded": True})]
    ways += [("padded in CUDA graphs", {"padded": True, "compile": "cudagraphs"})] * compiled
    for name, way in ways:
        one = MaskGitSampler(model, pixels, SamplingConfig(steps=STEPS, **way), slots=PATHS)
        state = start(one)
        for _ in range(STEPS // 2):
            state = one.step(state)
        number = launches(device, lambda one=one, state=state: one.step(state))
        seconds = timed(device, lambda one=one, state=state: one.step(state))
        peak, _ = peak_bytes(device, lambda one=one, state=state: one.step(state))
        yield Row(f"a step of {PATHS} paths, {name}: launches", f"{number}")
        yield Row(f"a step of {PATHS} paths, {name}: ms", f"{1000 * seconds:.1f}")
        yield Row(f"a step of {PATHS} paths, {name}: MiB beside weights and state", f"{peak / 2**20:.0f}")
    guess = state.guess[:16]
    yield Row("decoding of 16 images: ms", f"{1000 * timed(device, lambda: one.decode(guess)):.1f}")
    yield Row("decoding of 16 images: MiB", f"{peak_bytes(device, lambda: one.decode(guess))[0] / 2**20:.0f}")


def start(one: MaskGitSampler) -> Any:
    """The paths of eight prompts."""
    prompts = [PROMPTS[path % len(PROMPTS)] for path in range(PATHS)]
    return one.start(prompts, [Seed(0, prompt.index, 0, path) for path, prompt in enumerate(prompts)])


def launches(device: str, work: Callable[[], Any]) -> int:
    """How often the host starts something."""
    if device == "cpu":
        with Operations() as operations:
            work()
        return operations.counts.total()
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        work()
        torch.cuda.synchronize()
    return sum(event.count for event in profile.key_averages() if event.key in LAUNCHES)


CHECKS: dict[str, Callable[..., Iterator[Row]]] = {
    "tokens": tokens,
    "judge": judge,
    "losses": losses,
    "memory": memory_of_training,
    "sampler": sampler,
    **SPEED,
}

if __name__ == "__main__":
    sys.exit(main())
