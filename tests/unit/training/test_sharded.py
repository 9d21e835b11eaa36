"""What is sharded changes nothing that is learned: ZeRO 1, 2 and 3 against training without it."""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch

from genloop.checkpoint import load_tensors
from genloop.distributed import World, process_group
from genloop.job import PREPARED, parse, prepare, run_command
from genloop.reading import read_json_object
from genloop.registry import INSTALL, require
from genloop.training.loop import train
from genloop.training.settings import TrainSettings
from genloop.training.state import checkpoints
from jobs import train_dpo, train_grpo, train_judge, train_showo, train_student, train_tokenizer
from tests.runs import ROOT, launch, refusal, wait_until, workers_of
from tests.worlds.judge_data import both_splits
from tests.worlds.ranks import on_two_ranks
from tests.worlds.small_sequences import SKIPPED, Net, Sequences

LAST, HALF = "checkpoints/step-0000006", "checkpoints/step-0000003"
RATIOS = ("chosen_log_ratio", "rejected_log_ratio", "loss_dpop")
COMPILERS = ("c++", "g++", "gcc", "cc", "clang", "ninja", "nvcc")
# Five items on two ranks: one does two passes, the other one and a dummy one; their sentences differ in length.
MIXED = ["batch.groups=3", "batch.paths=3", "batch.scenes=4", "loss.names=0.5", "loss.reason=0.5"]
STEPS = ["train.num_steps=6", "train.save_every=3", "train.log_every=1", "train.rows_per_forward=2"]
WORDS = ["tiny", *MIXED, *STEPS]


def settings(stage: int, **more) -> TrainSettings:
    every = {"num_steps": 6, "save_every": 3, "log_every": 1, "rows_per_forward": 1, "warmup_steps": 0}
    return TrainSettings(zero_stage=stage, **{**every, "lr": 1e-2, "ema": 0.5, **more})


def train_small(run: Path, world: World, *, resume: Path | None = None, **keys) -> None:
    """Train the small sequences, perhaps on from the checkpoint in the middle of another run."""
    run.mkdir(exist_ok=True)
    if resume and world.rank == 0:
        shutil.copytree(resume / HALF, run / HALF)
        shutil.copy(resume / "metrics.jsonl", run)
    if world.world_size > 1:
        torch.distributed.barrier()
    objective = Sequences(dropout=keys.pop("dropout", False))
    train(objective, settings(**keys), run, world)
    assert type(objective.model) is Net
    assert objective.model.head.weight is objective.model.embed.weight
    if world.rank == 0:
        torch.save(objective.model.state_dict(), run / "model.pt")


def train_all(folder: Path) -> int:
    """What the tests below look at, in one start of two ranks."""
    torch.set_num_threads(1)
    world = World.from_environment()
    with process_group(world):
        for stage in range(4):
            train_small(folder / f"stage-{stage}", world, stage=stage)
        for stage in range(4):
            train_small(folder / f"resumed-{stage}", world, resume=folder / f"stage-{(stage - 1) % 4}", stage=stage)
        for stage in range(4):
            train_small(folder / f"bf16-{stage}", world, stage=stage, precision="bf16")
            train_small(folder / f"dropout-{stage}", world, stage=stage, dropout=True, use_ema=False)
        for stage in (0, 3):
            train_small(folder / f"fp16-{stage}", world, stage=stage, precision="fp16")
    return int("__compatible_ops__" in vars(require("deepspeed.ops")))  # it asks compilers for the first look at it


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Runs of the small sequences; compilers note that they were called."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "bin").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in COMPILERS:
            (folder / "bin" / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/compiled\nexit 1\n")
            (folder / "bin" / name).chmod(0o755)
        patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
        patch.setenv("DS_ACCELERATOR", "cuda")  # as it may be left over from an installation
        assert on_two_ranks(patch, lambda: train_all(folder)) == [0, 0]
    return folder


def assert_same(one: Path, other: Path, *, tolerance: float = 1e-5) -> None:
    """Lines of metrics, checkpoints and the model that is left."""
    for row, again in zip(lines(one), lines(other), strict=True):
        assert again.keys() == row.keys()
        for key in row:
            assert again[key] == pytest.approx(row[key], rel=tolerance, abs=tolerance), (row["step"], key)
    for tensors, others in (
        (load_tensors(one / LAST), load_tensors(other / LAST)),
        (torch.load(one / "model.pt"), torch.load(other / "model.pt")),
    ):
        assert tensors.keys() == others.keys()
        for name, value in tensors.items():
            assert others[name].dtype == value.dtype
            assert torch.allclose(others[name].float(), value.float(), rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(("kind", "tolerance"), [("stage", 1e-5), ("dropout", 1e-5), ("bf16", 0.02)])
def test_every_stage_learns_what_stage_0_learns(small, kind, tolerance, stage):
    assert_same(small / f"{kind}-0", small / f"{kind}-{stage}", tolerance=tolerance)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_run_goes_on_under_another_stage(small, stage):
    assert_same(small / "stage-0", small / f"resumed-{stage}")


def test_a_run_goes_on_without_other_ranks(small, tmp_path):
    train_small(tmp_path, World(), resume=small / "stage-3", stage=3)
    assert_same(small / "stage-0", tmp_path)


def test_float16_under_stage_3_has_the_loss_scale_of_stage_0(small):
    assert_same(small / "fp16-0", small / "fp16-3", tolerance=0.02)
    one, other = (read_json_object(small / f"fp16-{stage}" / LAST / "progress.json") for stage in (0, 3))
    assert one["scaler"] == other["scaler"]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_step_without_a_finite_gradient_is_left_out(small, stage):
    rows = {row["step"]: row for row in lines(small / f"stage-{stage}") if "lr" in row}
    assert "skipped" in rows[SKIPPED]
    assert "grad_norm" not in rows[SKIPPED]
    steps = {value.item() for name, value in load_tensors(small / f"stage-{stage}" / LAST).items() if "/step" in name}
    assert steps == {5.0}


def test_checkpoints_hold_what_is_trained(small):
    names = load_tensors(small / "stage-3" / LAST).keys()
    assert {name for name in names if name.startswith("model.")} == {
        f"model.{name}" for name, parameter in Net().named_parameters() if parameter.requires_grad
    }


def test_nothing_is_compiled(small):
    assert not (small / "compiled").exists()
    assert not (small / "extensions").exists()


@pytest.mark.parametrize("job", ["train_judge", "train_showo", "train_tokenizer"])
def test_float16_is_refused_where_deepspeed_steps(tmp_path, capsys, job):
    words = ["tiny", "train.zero_stage=2", "train.precision=fp16", f"out={tmp_path / 'run'}"]
    assert "train.precision" in refusal(importlib.import_module(f"jobs.{job}"), words, tmp_path, capsys)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    return both_splits(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def plain(generated, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    os.chdir(ROOT)
    assert run_command(train_judge, [*WORDS, f"out={out}", f"data.paths.shards={generated}"]) == 0
    return out


def lines(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(("_per_s", "cpu_seconds"))} for row in rows]


def check_same(one: Path, other: Path, folder: str) -> None:
    """Metrics to 1e-5 of their value, weights to 1e-4: AdamW steps by the sign of a gradient, even one of rounding.

    A key's bias changes no attention, so its gradient is rounding, and AdamW makes steps of that. A log-ratio is the
    difference of two sums of some hundred nats, and as exact as they are.
    """
    for row, again in zip(lines(one), lines(other), strict=True):
        ratios = {key: again.pop(key) for key in RATIOS if key in again}
        assert ratios == pytest.approx({key: row.pop(key) for key in ratios}, rel=1e-5, abs=1e-4)
        assert again == pytest.approx(row, rel=1e-5, abs=1e-5)
    a, b = load_tensors(one / folder), load_tensors(other / folder)
    assert a.keys() == b.keys()
    far = [name for name in a if not torch.allclose(a[name], b[name], rtol=0, atol=1e-4)]
    assert [name for name in far if not name.endswith(("k_proj.bias", "k.bias"))] == []


@pytest.fixture(scope="module")
def imported() -> None:
    """What every rank of stage 3 that is forked from here would import again, for a second."""
    importlib.import_module("genloop.training.sharded.by_fsdp")


def run_on_two_ranks(monkeypatch: pytest.MonkeyPatch, job: ModuleType, words: Sequence[str]) -> None:
    monkeypatch.setenv(PREPARED, prepare(job, parse(job, words)).digest)
    assert on_two_ranks(monkeypatch, lambda: run_command(job, words)) == [0, 0]
    monkeypatch.delenv(PREPARED)


def test_every_stage_trains_the_judge(imported, generated, plain, tmp_path, monkeypatch):
    for stage in (2, 3):
        run = tmp_path / f"run-{stage}"
        words = [*WORDS, f"out={run}", f"data.paths.shards={generated}", f"train.zero_stage={stage}"]
        run_on_two_ranks(monkeypatch, train_judge, words)
        check_same(plain, run, "judge")
        one, other = (json.loads((path / "summary.json").read_text())["overall"] for path in (plain, run))
        assert {name: row["n"] for name, row in one.items()} == {name: row["n"] for name, row in other.items()}


@pytest.mark.parametrize(
    ("job", "folder", "stages"),
    [
        (train_showo, "showo", (1, 3)),
        (train_tokenizer, "tokenizer", (1, 3)),
        (train_student, "checkpoints/step-0000003", (1, 3)),
        (train_dpo, "showo", (1, 2, 3)),
        (train_grpo, "showo", (1, 2, 3)),
    ],
)
def test_every_stage_trains_models_of_images(imported, tmp_path, monkeypatch, job, folder, stages):
    # one row a pass: the diversity term of a tokenizer looks at the rows of a pass together
    words = ["tiny", "train.num_steps=3", "train.log_every=1", "train.rows_per_forward=1"]
    assert run_command(job, [*words, f"out={tmp_path / 'plain'}"]) == 0
    for stage in stages:
        run = tmp_path / f"run-{stage}"
        run_on_two_ranks(monkeypatch, job, [*words, f"out={run}", f"train.zero_stage={stage}"])
        check_same(tmp_path / "plain", run, folder)


@pytest.mark.slow
def test_a_killed_run_goes_on_under_another_stage_is_stopped_and_ends_as_one_process(generated, tmp_path):
    long = [*WORDS, f"data.paths.shards={generated}", "train.num_steps=30"]
    assert run_command(train_judge, [*long, f"out={tmp_path / 'whole'}"]) == 0
    run = tmp_path / "run"
    first = launch("train_judge", *long, f"out={run}", "train.zero_stage=2", "--procs", "2")
    wait_until(lambda: bool(checkpoints(run)), 240)
    first.kill()
    first.communicate()
    wait_until(lambda: workers_of(run) == [])
    reached = len(lines(run))
    second = launch("train_judge", *long, f"out={run}", "train.zero_stage=3", "--procs", "2")
    wait_until(lambda: checkpoints(run)[-1].name > f"step-{reached + 3:07d}", 240)
    second.terminate()
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 75, errors
    assert reached < len(lines(run)) < 30
    assert run_command(train_judge, [*long, f"out={run}"]) == 0
    check_same(tmp_path / "whole", run, "judge")


def test_adapters_on_frozen_weights_in_half_precision_are_sharded_too(
    imported, generated, plain, tmp_path, monkeypatch
):
    words = [*WORDS, f"start={plain / 'judge'}", "questions=null", f"data.paths.shards={generated}", "lora.rank=2"]
    words += ["vision_lr=0", "saved_dtype=bfloat16", "train.gradient_checkpointing=true", "eval_every=2"]
    words += ["loss.names=0", "train.num_steps=4"]
    assert run_command(train_judge, [*words, f"out={tmp_path / 'plain'}"]) == 0
    run_on_two_ranks(monkeypatch, train_judge, [*words, f"out={tmp_path / 'run'}", "train.zero_stage=3"])
    one, other = lines(tmp_path / "plain"), lines(tmp_path / "run")
    assert [row["step"] for row in other if "outcome_auc" in row] == [2]
    assert [row.get("loss", 0.0) for row in other] == pytest.approx([row.get("loss", 0.0) for row in one], rel=2e-3)
    a, b = load_tensors(tmp_path / "plain/judge"), load_tensors(tmp_path / "run/judge")
    assert {name: (value.dtype, value.shape) for name, value in a.items()} == {
        name: (value.dtype, value.shape) for name, value in b.items()
    }
    assert max(float((a[name] - b[name]).float().abs().mean()) for name in a) < 1e-3
    saved = [load_tensors(checkpoints(tmp_path / name)[-1]) for name in ("plain", "run")]
    assert saved[0].keys() == saved[1].keys()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("train_judge", ["tiny", "train.zero_stage=1"]),
        ("train_showo", ["tiny", "train.zero_stage=2"]),
        ("train_tokenizer", ["magvit2", "shards=configs/data/shapes/shards", "train.zero_stage=2"]),
    ],
)
def test_without_deepspeed_it_is_refused_before_anything_is_done(tmp_path, capsys, monkeypatch, job, words):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    error = refusal(importlib.import_module(f"jobs.{job}"), [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert error == f"genloop: deepspeed is not installed; run: {INSTALL['train']}\n"


def test_without_peft_adapters_are_refused_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    error = refusal(train_judge, ["tiny", "lora.rank=2", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert error == f"genloop: peft is not installed; run: {INSTALL['train']}\n"


def test_one_process_shards_nothing(generated, plain, tmp_path):
    words = [*WORDS, f"out={tmp_path}", f"data.paths.shards={generated}", "train.zero_stage=3"]
    assert run_command(train_judge, words) == 0
    assert (tmp_path / "judge/model.safetensors").read_bytes() == (plain / "judge/model.safetensors").read_bytes()
