"""What ranks share out among each other changes nothing that is learned: ZeRO 1, 2 and 3 against whole copies."""

import importlib
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from genloop.checkpoint import load_tensors
from genloop.distributed import World, process_group
from genloop.job import PREPARED, parse, prepare, run_command
from genloop.rundir import RunFailed
from genloop.training.loop import train
from genloop.training.settings import TrainSettings
from genloop.training.state import checkpoints
from genloop.training.task import Loss, Objective, Plan
from jobs import train_judge, train_showo
from tests.runs import ROOT, genloop, launch, refusal, wait_until, workers_of
from tests.worlds.judge_data import both_splits

# Five items on two ranks: one does two passes, the other one and an idle one; their sentences differ in length.
MIXED = ["batch.groups=3", "batch.paths=3", "batch.scenes=4", "loss.names=0.5", "loss.reason=0.5"]
STEPS = ["train.num_steps=6", "train.save_every=3", "train.log_every=1", "train.rows_per_forward=2"]
WORDS = ["tiny", *MIXED, *STEPS]


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
    return [{key: value for key, value in row.items() if not key.endswith("_per_s")} for row in rows]


def check_same(one: Path, other: Path, folder: str) -> None:
    """Metrics to 1e-5 of their value, weights to 1e-5.

    A key's bias changes no attention, so its gradient is rounding, and AdamW makes steps of that.
    """
    for row, again in zip(lines(one), lines(other), strict=True):
        assert again == pytest.approx(row, rel=1e-5, abs=1e-5)
    a, b = load_tensors(one / folder), load_tensors(other / folder)
    assert a.keys() == b.keys()
    far = [name for name in a if not torch.allclose(a[name], b[name], rtol=0, atol=1e-5)]
    assert [name for name in far if not name.endswith("k_proj.bias")] == []


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_stage_learns_what_whole_copies_learn(generated, plain, tmp_path, stage):
    words = [f"out={tmp_path / 'run'}", f"data.paths.shards={generated}", f"train.zero_stage={stage}"]
    done = genloop("run", "train_judge", *WORDS, *words, "--procs", "2")
    assert done.returncode == 0, done.stderr
    check_same(plain, tmp_path / "run", "judge")
    one, other = ({path.name for path in checkpoints(run)} for run in (plain, tmp_path / "run"))
    assert one == other == {"step-0000003", "step-0000006"}
    summaries = [json.loads((run / "summary.json").read_text())["overall"] for run in (plain, tmp_path / "run")]
    assert {name: row["n"] for name, row in summaries[0].items()} == {n: row["n"] for n, row in summaries[1].items()}


def test_a_killed_run_goes_on_under_another_stage_is_stopped_and_ends_as_one_process(generated, tmp_path):
    long = [*WORDS, f"data.paths.shards={generated}", "train.num_steps=30"]
    assert run_command(train_judge, [*long, f"out={tmp_path / 'whole'}"]) == 0
    run = tmp_path / "run"
    first = launch("train_judge", *long, f"out={run}", "train.zero_stage=2", "--procs", "2")
    wait_until(lambda: bool(checkpoints(run)))
    first.kill()
    first.communicate()
    wait_until(lambda: workers_of(run) == [])
    reached = len(lines(run))
    second = launch("train_judge", *long, f"out={run}", "train.zero_stage=3", "--procs", "2")
    wait_until(lambda: checkpoints(run)[-1].name > f"step-{reached + 3:07d}")
    second.terminate()
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 75, errors
    assert reached < len(lines(run)) < 30
    assert run_command(train_judge, [*long, f"out={run}"]) == 0
    check_same(tmp_path / "whole", run, "judge")


def on_two_ranks(monkeypatch: pytest.MonkeyPatch, work: Callable[[], int]) -> list[int]:
    """Do `work` in two children of this process, which are spared its imports -> its results."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            for name, value in {**places, "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
                monkeypatch.setenv(name, value)
            os._exit(work())
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def run_on_two_ranks(monkeypatch: pytest.MonkeyPatch, job: ModuleType, words: Sequence[str]) -> None:
    monkeypatch.setenv(PREPARED, prepare(job, parse(job, words)).digest)
    assert on_two_ranks(monkeypatch, lambda: run_command(job, words)) == [0, 0]
    monkeypatch.delenv(PREPARED)


def test_adapters_on_frozen_weights_in_half_precision_are_shared_out_too(generated, plain, tmp_path, monkeypatch):
    words = [*WORDS, f"start={plain / 'judge'}", "questions=null", f"data.paths.shards={generated}", "lora.rank=2"]
    words += ["vision_lr=0", "dtype=bfloat16", "train.gradient_checkpointing=true", "eval_every=2", "loss.names=0"]
    words += ["train.num_steps=4"]
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


def test_a_showo_is_shared_out_too(tmp_path, monkeypatch):
    words = ["tiny", "train.num_steps=8", "train.log_every=1"]
    assert run_command(train_showo, [*words, f"out={tmp_path / 'plain'}"]) == 0
    more = [f"out={tmp_path / 'run'}", "train.zero_stage=3", "train.rows_per_forward=1"]
    run_on_two_ranks(monkeypatch, train_showo, [*words, *more])
    check_same(tmp_path / "plain", tmp_path / "run", "showo")


class Broken(Objective[int, torch.Tensor]):
    """A regression that has no number for its loss."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 1)
        nn.init.constant_(self.model.weight, math.nan)

    def plan(self, step: int) -> Plan[int]:
        return Plan(range(4), 4.0)

    def load(self, items, plan) -> torch.Tensor:
        return torch.ones(len(items), 3)

    def loss(self, batch: torch.Tensor) -> Loss:
        return Loss(self.model(batch).square().sum(), float(len(batch)))


def test_a_loss_that_is_not_a_number_stops_all_ranks(tmp_path, monkeypatch):
    def work() -> int:
        world = World.from_environment()
        with process_group(world), pytest.raises(RunFailed, match="no checkpoint yet"):
            train(Broken(), TrainSettings(num_steps=2, zero_stage=2, max_skipped=0), tmp_path, world)
        return 3

    assert on_two_ranks(monkeypatch, work) == [3, 3]
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("train_judge", ["tiny", "train.zero_stage=1"]),
        ("train_showo", ["tiny", "train.zero_stage=2"]),
        ("train_tokenizer", ["magvit2", "shards=tests/data/shapes/shards", "train.zero_stage=3"]),
    ],
)
def test_without_deepspeed_it_is_refused_before_anything_is_done(tmp_path, capsys, monkeypatch, job, words):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    error = refusal(importlib.import_module(f"jobs.{job}"), [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert error == "genloop: deepspeed is not installed; run: pip install -e '.[train]'\n"


def test_without_peft_adapters_are_refused_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    error = refusal(train_judge, ["tiny", "lora.rank=2", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert error == "genloop: peft is not installed; run: pip install -e '.[train]'\n"


def test_one_process_has_nothing_to_share(generated, plain, tmp_path):
    words = [*WORDS, f"out={tmp_path}", f"data.paths.shards={generated}", "train.zero_stage=3"]
    assert run_command(train_judge, words) == 0
    assert (tmp_path / "judge/model.safetensors").read_bytes() == (plain / "judge/model.safetensors").read_bytes()
