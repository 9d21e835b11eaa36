"""What holds of every training: ranks, micro-batches, loaders, interruptions and precision change nothing that matters.

A task is a job with words that make it tiny; the same laws hold for each.
"""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from genloop.job import PREPARED, parse, prepare, run_command
from genloop.training.state import checkpoints
from jobs import train_diffusion, train_dpo, train_judge, train_showo, train_student, train_tokenizer, train_vlm
from tests.runs import ROOT, start, wait_until
from tests.worlds.ranks import on_two_ranks


@dataclass(frozen=True)
class Tiny:
    """A training of a few seconds; `weights` is what it leaves."""

    job: ModuleType
    words: tuple[str, ...]
    weights: str
    preset: str = "tiny"

    def arguments(self, run: Path, *more: str) -> list[str]:
        """Five items a step: two ranks get three and two of them."""
        steps = ("train.num_steps=6", "train.save_every=3", "train.log_every=1", "train.warmup_steps=2")
        return [self.preset, *self.words, *steps, f"out={run}", *more]

    def run(self, run: Path, *more: str) -> Path:
        assert run_command(self.job, self.arguments(run, *more)) == 0
        return run


FIVE = "train.batch_size=5"
TASKS = {
    "masked tokens": Tiny(train_showo, (FIVE,), "showo/pytorch_model.safetensors"),
    "judge": Tiny(train_judge, ("batch.scenes=10", "loss.names=0.5"), "judge/model.safetensors"),
    "conversations": Tiny(train_vlm, ("chat.batch_size=5", "chat.max_length=256"), "model/model.safetensors"),
    "pairs of answers": Tiny(
        train_vlm, ("chat.batch_size=5", "merged=false"), "adapter/adapter_model.safetensors", "tiny_pairs"
    ),
    "preference pairs": Tiny(train_dpo, (FIVE,), "showo/pytorch_model.safetensors"),
    "student": Tiny(train_student, (FIVE,), "lora/pytorch_lora_weights.safetensors"),
    "student of few steps": Tiny(
        train_student, (FIVE, "objective=lcm", "weights=full"), "student/unet/diffusion_pytorch_model.safetensors"
    ),
    "smaller student": Tiny(
        train_student,
        (FIVE, "objective=features", "weights=full", "features.mid=false"),
        "student/unet/diffusion_pytorch_model.safetensors",
    ),
    "image preference": Tiny(
        train_student,
        (FIVE, "objective=dpo", "dpo.rejected=configs/data/diffusion/rejected", "dpo.beta=50", "drop_captions=0"),
        "lora/pytorch_lora_weights.safetensors",
    ),
    "small diffusion model": Tiny(
        train_diffusion, (FIVE, "train.ema=0.9"), "pipeline/unet/diffusion_pytorch_model.safetensors"
    ),
    # without the entropy term, which looks at all rows of a pass together
    "tokenizer": Tiny(train_tokenizer, (FIVE, "loss.entropy=0", "num_scenes=0"), "tokenizer/pytorch_model.safetensors"),
    "autoencoder": Tiny(
        train_tokenizer,
        (FIVE, "kind=autoencoder_kl", "autoencoder.channels=[8,8]", "num_scenes=0"),
        "vae/diffusion_pytorch_model.safetensors",
    ),
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module", params=TASKS)
def task(request) -> Tiny:
    return TASKS[request.param]


@pytest.fixture(scope="module")
def plain(task, tmp_path_factory) -> Path:
    """The uninterrupted run of one process."""
    os.chdir(ROOT)
    return task.run(tmp_path_factory.mktemp("plain") / "run")


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def children_of(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children")
    return [int(number) for number in found.read_text().split()] if found.exists() else []


def test_two_ranks_with_unequal_numbers_of_passes_have_the_losses_of_one(task, plain, tmp_path, monkeypatch):
    words = task.arguments(tmp_path / "run", "train.rows_per_forward=2", "train.loaders=1")
    monkeypatch.setenv(PREPARED, prepare(task.job, parse(task.job, words)).digest)
    assert on_two_ranks(monkeypatch, lambda: run_command(task.job, words)) == [0, 0]
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=1e-5)


def test_accumulation_over_micro_batches_changes_no_loss(task, plain, tmp_path):
    run = task.run(tmp_path / "run", "train.rows_per_forward=2")
    assert losses(run) == pytest.approx(losses(plain), rel=1e-5)


def test_half_precision_stays_close(task, plain, tmp_path):
    run = task.run(tmp_path / "run", "train.precision=bf16")
    assert losses(run) == pytest.approx(losses(plain), rel=0.05)  # a bit of a code may flip
    assert losses(run) != losses(plain)


def test_a_killed_run_leaves_no_process_and_ends_with_the_very_bits_also_read_ahead(task, plain, tmp_path):
    words = task.arguments(tmp_path / "run", "train.loaders=2")
    trainer = start(task.job.__name__, *words)
    wait_until(lambda: checkpoints(tmp_path / "run") or trainer.poll() is not None)
    readers = children_of(trainer.pid)
    trainer.send_signal(signal.SIGKILL)
    trainer.communicate()
    wait_until(lambda: not any(Path(f"/proc/{reader}").exists() for reader in readers))
    run = task.run(tmp_path / "run", "train.loaders=2")
    assert (run / task.weights).read_bytes() == (plain / task.weights).read_bytes()
    assert losses(run) == losses(plain)
