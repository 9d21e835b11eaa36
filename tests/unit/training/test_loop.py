"""The train loop: resuming changes nothing, ranks and micro-batches change nothing, a stop is clean."""

import json
import math
import os
import signal
import socket
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from genloop.checkpoint import load_tensors
from genloop.distributed import StopRequested, World, process_group
from genloop.rundir import RunFailed
from genloop.training.loop import train
from genloop.training.optimizer import build_optimizer, learning_rate
from genloop.training.settings import TrainSettings
from genloop.training.state import Progress, checkpoints, load_state, save_state
from genloop.training.task import Loss, Objective, Plan

SETTINGS = TrainSettings(num_steps=12, batch_size=6, lr=0.05, warmup_steps=3, save_every=4, log_every=5)


class Regression(Objective[int, torch.Tensor]):
    """A regression whose batch of step s is keyed by s; items are rows of it."""

    def __init__(self, settings: TrainSettings = SETTINGS, before_step=lambda step: None) -> None:
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.settings, self.before_step, self.loaded = settings, before_step, 0
        generator = torch.Generator().manual_seed(0)
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def plan(self, step: int) -> Plan[int]:
        return Plan(range(self.settings.batch_size), float(self.settings.batch_size), step)

    def load(self, items, plan) -> torch.Tensor:
        self.loaded = plan.shared
        self.before_step(plan.shared)
        rows = torch.randn(self.settings.batch_size, 3, generator=torch.Generator().manual_seed(plan.shared))
        return rows[list(items)]

    def loss(self, batch: torch.Tensor) -> Loss:
        error = (self.model(batch)[:, 0] - batch.prod(dim=1)).square()
        return Loss(error.sum(), float(len(batch)), {"worst": float(error.detach().max())})


def fit(objective: Regression, run: Path, world: World | None = None) -> None:
    train(objective, objective.settings, run, world or World())


def weights(task: Regression) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in task.model.parameters()]


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("_per_s")} for row in rows]


def whole_run(folder: Path) -> list[torch.Tensor]:
    whole = Regression()
    folder.mkdir()
    fit(whole, folder, World())
    return weights(whole)


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
def test_a_stopped_and_resumed_run_gives_the_same_bits(tmp_path, stop_at):
    expected = whole_run(tmp_path / "whole")
    run = tmp_path / "run"
    run.mkdir()
    world = World()
    with pytest.raises(StopRequested):
        fit(Regression(before_step=lambda step: world.request_stop() if step == stop_at else None), run, world)
    assert checkpoints(run)[-1].name == f"step-{stop_at:07d}"
    resumed = Regression()
    fit(resumed, run, World())
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), expected))
    assert metrics(run) == metrics(tmp_path / "whole")


@pytest.mark.parametrize("kill_at", [3, 6, 10])
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_bits(tmp_path, kill_at):
    expected = whole_run(tmp_path / "whole")
    run = tmp_path / "run"
    run.mkdir()
    child = os.fork()
    if child == 0:
        fit(
            Regression(before_step=lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == kill_at else None),
            run,
            World(),
        )
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (run / "checkpoints" / ".step-0000099.torn.tmp").mkdir(parents=True)  # what a kill while saving leaves
    resumed = Regression()
    fit(resumed, run, World())
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), expected))
    assert metrics(run) == metrics(tmp_path / "whole")
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-0000008", "step-0000012"]


def test_two_ranks_learn_what_one_learns(tmp_path, monkeypatch):
    expected = whole_run(tmp_path / "whole")
    run = tmp_path / "run"
    run.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            world = World(rank, 2, rank)
            with process_group(world):
                fit(Regression(), run, world)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    shared = Regression()
    assert load_state(run, shared.model, build_optimizer(shared.model, SETTINGS)).step == 12
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(shared), expected))
    assert [row["step"] for row in metrics(run)] == [5, 10, 12]


def test_micro_batches_only_change_the_order_of_additions(tmp_path):
    expected = whole_run(tmp_path / "whole")
    small = Regression(SETTINGS.model_copy(update={"rows_per_forward": 2}))
    fit(small, tmp_path, World())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(small), expected))


def test_a_damaged_checkpoint_and_a_torn_line_fall_back_to_the_one_before(tmp_path):
    expected = whole_run(tmp_path / "whole")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    fit(Regression(), damaged, World())
    newest = checkpoints(damaged)[-1] / "pytorch_model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-8])
    with open(damaged / "metrics.jsonl", "a") as file:
        file.write('{"step": 12, "lo')
    again = Regression()
    fit(again, damaged, World())
    assert all(torch.equal(a, b) for a, b in zip(weights(again), expected, strict=True))
    assert metrics(damaged) == metrics(tmp_path / "whole")


def test_more_ranks_than_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"6 items is too small for 7 ranks"):
        fit(Regression(), tmp_path, World(rank=6, world_size=7))


def test_the_finished_run_has_nothing_left_to_do(tmp_path):
    expected = whole_run(tmp_path / "whole")
    again = Regression(before_step=lambda step: pytest.fail(f"step {step} was done again"))
    fit(again, tmp_path / "whole", World())
    assert all(torch.equal(a, b) for a, b in zip(weights(again), expected))


def test_metrics_are_means_over_the_window_and_the_loss_falls(tmp_path):
    long = SETTINGS.model_copy(update={"num_steps": 200, "log_every": 50, "save_every": 500})
    fit(Regression(long), tmp_path, World())
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"loss", "worst", "lr", "grad_norm"} <= set(rows[0])


def test_the_rate_warms_up_and_ends_at_its_share():
    settings = SETTINGS.model_copy(update={"num_steps": 100, "warmup_steps": 10, "lr": 1.0, "min_lr": 0.05})
    rates = [learning_rate(step, settings) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.05)
    assert max(rates) == rates[9]
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))


def test_steps_without_a_finite_gradient_are_left_out_and_counted(tmp_path):
    skipping = Regression()
    loss = skipping.loss
    skipping.loss = lambda batch: loss(batch * math.nan if skipping.loaded in (2, 3, 7) else batch)
    fit(skipping, tmp_path)
    assert [row.get("skipped") for row in metrics(tmp_path)] == [2, 1, None]
    assert all(math.isfinite(row["loss"]) for row in metrics(tmp_path))
    assert all(weight.isfinite().all() for weight in weights(skipping))


def test_too_many_of_them_in_a_row_end_the_run_at_its_newest_good_checkpoint(tmp_path):
    broken = Regression(SETTINGS.model_copy(update={"max_skipped": 2}))
    loss = broken.loss
    broken.loss = lambda batch: loss(batch * math.nan if broken.loaded > 5 else batch)
    with pytest.raises(RunFailed, match="step-0000004") as caught:
        fit(broken, tmp_path)
    assert caught.value.exit_code == 1
    newest = checkpoints(tmp_path)[-1]
    assert newest.name == "step-0000004"
    assert all(value.isfinite().all() for value in load_tensors(newest).values())


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    first = Regression()
    save_state(tmp_path, first.model, build_optimizer(first.model, SETTINGS), None, Progress(4), keep=1)
    other = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 1))
    with pytest.raises(ValueError, match=r"misshapen \(0\.weight is \[8, 3\], expected \[9, 3\]"):
        load_state(tmp_path, other, build_optimizer(other, SETTINGS))
