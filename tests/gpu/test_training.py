"""Ten steps of training on a GPU are those of a CPU, in every precision, with adapters, sharded, and after a stop."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from genloop.job import run_command
from jobs import train_judge, train_showo, train_tokenizer
from tests.runs import run_ranks

NUM_STEPS = 10
STEPS = ["tiny", f"train.num_steps={NUM_STEPS}", "train.log_every=1"]


def losses(run: Path) -> np.ndarray:
    """Of each step; NaN where the step was left out, as under fp16 until the loss is scaled low enough."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    found = {line["step"]: line["loss"] for line in lines if "loss" in line}
    return np.array([found.get(step, np.nan) for step in range(1, NUM_STEPS + 1)])


def train(job: ModuleType, run: Path, *words: str) -> np.ndarray:
    assert run_command(job, [*STEPS, f"out={run}", *words]) == 0
    return losses(run)


@pytest.mark.parametrize("job", [train_showo, train_tokenizer, train_judge])
def test_losses_are_those_of_the_cpu(device: str, out: Path, job: ModuleType) -> None:
    one, other = (train(job, out / name, f"train.device={name}") for name in ("cpu", device))
    assert np.abs(other / one - 1).max() <= 1e-3


def test_half_precision_stays_near(device: str, out: Path) -> None:
    one = train(train_showo, out / "expected", "train.device=cpu")
    for precision in ("bf16", "fp16") if device == "cuda" else ("bf16",):  # no CPU trains in fp16
        other = train(train_showo, out / precision, f"train.device={device}", f"train.precision={precision}")
        learned = np.isfinite(other)
        assert learned.sum() >= NUM_STEPS - 2 * (precision == "fp16")
        assert np.abs(other / one - 1)[learned].max() <= 0.1


def test_adapters_learn_as_on_the_cpu(device: str, out: Path) -> None:
    words = ["lora.rank=2", "train.lr=0.01"]
    one, other = (train(train_showo, out / name, f"train.device={name}", *words) for name in ("cpu", device))
    assert np.abs(other / one - 1).max() <= 1e-3
    assert (out / device / "adapter" / "adapter_model.safetensors").is_file()


def test_a_training_goes_on_where_it_was(device: str, out: Path) -> None:
    place = f"train.device={device}"
    straight = train(train_showo, out / "straight", place, "train.save_every=5")
    train(train_showo, out / "halves", place, "train.save_every=5")
    for later in sorted((out / "halves" / "checkpoints").glob("step-*"))[1:]:
        later.rename(out / later.name)  # as if it had been stopped after the first checkpoint
    again = train(train_showo, out / "halves", place, "train.save_every=5")
    assert np.abs(again[-5:] / straight[-5:] - 1).max() <= (1e-4 if device == "cuda" else 0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_sharded_trainings_have_the_losses_of_one_process(device: str, out: Path, stage: int) -> None:
    """On as many GPUs as there are, up to two, through NCCL; one CPU process a stage in the suite."""
    ranks = min(2, torch.cuda.device_count()) if device == "cuda" else 1
    precision = "bf16" if stage in (1, 2) else "fp32"
    words = [*STEPS, f"train.device={device}", f"train.precision={precision}", "train.batch_size=4"]
    run_ranks("train_showo", *words, f"train.zero_stage={stage}", f"out={out / 'sharded'}", world_size=ranks)
    alone = train(train_showo, out / "alone", *words[3:])
    assert np.abs(losses(out / "sharded") / alone - 1).max() <= (1e-3 if precision == "fp32" else 0.05)
