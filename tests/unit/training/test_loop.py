"""The train loop: resuming changes nothing, ranks and micro-batches change nothing, a stop is clean."""

import math
import multiprocessing
import os
import signal
from itertools import pairwise

import pytest
import torch
from torch import nn

from genloop.checkpoint import load_tensors
from genloop.distributed import StopRequested, World
from genloop.job import note
from genloop.rundir import RunFailed
from genloop.training.loading import Loading
from genloop.training.loop import train
from genloop.training.optimizer import build_optimizer, learning_rate
from genloop.training.state import Progress, checkpoints, load_state, save_state, trained_tensors
from genloop.training.task import Plan
from tests.worlds.regression import SETTINGS, Regression, fit, metrics, weights, whole_run


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


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_averages_scale_and_dropout_are_resumed_too(tmp_path, precision):
    settings = SETTINGS.model_copy(update={"precision": precision, "ema": 0.8, "schedule": "linear"})
    whole = Regression(settings, dropout=0.3)
    (tmp_path / "whole").mkdir()
    fit(whole, tmp_path / "whole")
    world = World()
    with pytest.raises(StopRequested):
        fit(Regression(settings, lambda step: world.request_stop() if step == 7 else None, 0.3), tmp_path, world)
    torch.manual_seed(7)  # nothing comes from the global generator
    resumed = Regression(settings, dropout=0.3)
    fit(resumed, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    assert metrics(tmp_path) == metrics(tmp_path / "whole")
    one, other = (load_tensors(checkpoints(run)[-1]) for run in (tmp_path, tmp_path / "whole"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_dropout_changes_from_step_to_step_and_with_the_seed(tmp_path):
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        dropped = Regression(SETTINGS, dropout=0.5)
        (tmp_path / str(number)).mkdir()
        train(dropped, SETTINGS, tmp_path / str(number), World(), seed=seed)
        runs.append(weights(dropped))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))


def test_the_model_is_evaluated_and_left_with_its_averages(tmp_path):
    settings = SETTINGS.model_copy(update={"ema": 0.5, "save_every": 1, "keep": 20})
    averaged, plain, seen = Regression(settings), Regression(), []
    averaged.after_every = 4
    averaged.after_step = lambda step: seen.append((step, averaged.model.training, weights(averaged)[0]))
    (tmp_path / "plain").mkdir()
    fit(plain, tmp_path / "plain")
    fit(averaged, tmp_path)
    expected, ema = Regression().model[0].weight.detach(), {}
    for number, folder in enumerate(checkpoints(tmp_path), start=1):
        expected = 0.5 * expected + 0.5 * load_tensors(folder)["model.0.weight"]
        ema[number] = expected
    assert [(step, training) for step, training, _ in seen] == [(4, False), (8, False), (12, False)]
    assert all(torch.allclose(weight, ema[step], atol=1e-6) for step, _, weight in seen)
    assert torch.allclose(weights(averaged)[0], ema[12], atol=1e-6)
    last = load_tensors(checkpoints(tmp_path)[-1])["model.0.weight"]
    assert torch.equal(last, weights(plain)[0])  # averages change no step


@pytest.mark.parametrize("loaders", [1, 2])
def test_readers_change_no_bit(tmp_path, loaders):
    expected = whole_run(tmp_path / "whole")
    ahead = Regression(SETTINGS.model_copy(update={"loaders": loaders, "rows_per_forward": 3}))
    here = Regression(SETTINGS.model_copy(update={"loaders": 0, "rows_per_forward": 3}))
    fit(ahead, tmp_path)
    (tmp_path / "here").mkdir()
    fit(here, tmp_path / "here")
    assert all(torch.equal(a, b) for a, b in zip(weights(ahead), weights(here), strict=True))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(ahead), expected, strict=True))


class UnreadableError(ValueError):
    """An error that does not survive the way out of a process: it wants two arguments."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@pytest.mark.parametrize(
    ("error", "found"), [(ValueError("torn"), ValueError), (UnreadableError("to", "rn"), RuntimeError)]
)
def test_what_fails_in_a_reader_fails_the_run_with_its_notes(tmp_path, error, found):
    def fail(step: int) -> None:
        if step == 3:
            with note("image 7"):
                raise error

    before = set(multiprocessing.active_children())
    with pytest.raises(found, match=r"to ?rn") as caught:
        fit(Regression(SETTINGS.model_copy(update={"loaders": 2}), fail), tmp_path)
    assert set(multiprocessing.active_children()) <= before  # else this process would wait for them when it ends
    assert caught.value.__notes__[-1] == "rank 0, step 3"
    assert "image 7" in caught.value.__notes__
    assert "test_loop.py" in str(caught.value.__cause__)


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


def test_micro_batches_only_change_the_order_of_additions(tmp_path):
    expected = whole_run(tmp_path / "whole")
    small = Regression(SETTINGS.model_copy(update={"rows_per_forward": 2}))
    fit(small, tmp_path, World())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(small), expected))


class Tight(Regression):
    """Runs out of memory in the second pass of step 2, and with more than `most` rows from then on."""

    def __init__(self, most: int, **changes) -> None:
        super().__init__(SETTINGS.model_copy(update=changes))
        self.most, self.passes, self.prepared, self.prepare_every = most, [], [], 1

    def prepare(self, step, gathered):
        self.prepared.append(step)

    def loss(self, batch):
        self.passes.append(len(batch))
        if len(self.passes) >= 4 and len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(batch)


@pytest.mark.parametrize("loaders", [0, 1])
def test_training_that_runs_out_of_memory_goes_on_with_fewer_rows(tmp_path, caplog, loaders):
    """What the passes before the one that failed have added to the gradient does not count twice."""
    expected = whole_run(tmp_path / "whole")
    tight = Tight(1, rows_per_forward=3, loaders=loaders)
    fit(tight, tmp_path, World())
    assert tight.passes == [3, 3, 3, 3] + [1] * 6 * 11
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights(tight), expected))
    (line,) = [line for line in caplog.messages if "train.rows_per_forward=3" in line]
    assert tight.prepared == list(range(1, 13))  # once each
    assert line.endswith("going on with 1") and [row["step"] for row in metrics(tmp_path)] == [5, 10, 12]


def test_a_row_that_does_not_fit_ends_training_by_name(tmp_path):
    with pytest.raises(torch.OutOfMemoryError) as raised:
        fit(Tight(0), tmp_path)
    assert any(note.startswith("train.rows_per_forward: 1 ") for note in raised.value.__notes__)


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


@pytest.mark.parametrize("garbled", [b"\xff\0\n", b"{\n", b"[1]\n", b"\n", b'{"step": "x"}\n', b'{"loss": 1.0}\n'])
def test_lines_of_metrics_that_are_no_rows_are_dropped(tmp_path, garbled):
    run = tmp_path / "run"
    whole_run(run)
    path = run / "metrics.jsonl"
    before = path.read_bytes()
    first, *others = before.splitlines(keepends=True)
    path.write_bytes(first + garbled + b"".join(others))
    fit(Regression(), run, World())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "name", [".DS_Store", ".nfs0000000000000001", "._step-0000004", "notes.txt", "step-notes", ".cache/x"]
)
def test_other_files_beside_the_checkpoints_are_left_alone(tmp_path, name):
    expected = whole_run(tmp_path / "whole")
    stranger = tmp_path / "run" / "checkpoints" / name
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    other = Regression()
    fit(other, tmp_path / "run", World())
    assert all(torch.equal(a, b) for a, b in zip(weights(other), expected, strict=True))
    assert stranger.read_text() == "mine"


def test_more_ranks_than_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"6 items .*7 ranks"):
        fit(Regression(), tmp_path, World(rank=6, world_size=7))


def test_a_later_batch_that_leaves_a_rank_without_items_is_refused_on_all_ranks():
    class Shrinking(Regression):
        def plan(self, step):
            return Plan(range(4 - step), float(4 - step), step)

    for rank in range(2):
        keys = {"first": 1, "device": torch.device("cpu"), "equal_passes": False, "seed": 0}
        steps = Loading(Shrinking(), SETTINGS, World(rank, 2), **keys).steps(lambda number: 0.1)
        assert [step.num_items for _, step in zip(range(2), steps)] == [3, 2]
        with pytest.raises(ValueError, match=r"step 3: .*1 items .*2 ranks"):
            next(steps)


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


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_warms_up_and_ends_at_its_share(schedule):
    update = {"num_steps": 100, "warmup_steps": 10, "lr": 1.0, "min_lr": 0.05, "schedule": schedule}
    settings = SETTINGS.model_copy(update=update)
    rates = [learning_rate(step, settings) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.05)
    assert max(rates) == rates[9]
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))


def test_a_constant_rate_stays():
    settings = SETTINGS.model_copy(update={"num_steps": 100, "warmup_steps": 10, "lr": 1.0, "schedule": "constant"})
    assert [learning_rate(step, settings) for step in (5, 10, 50, 100)] == [0.5, 1, 1, 1]


def test_frozen_weights_and_the_buffers_beside_them_stay_out_of_checkpoints(tmp_path):
    partly = nn.ModuleDict({"frozen": nn.BatchNorm1d(2), "trained": nn.BatchNorm1d(2), "table": nn.Module()})
    partly["frozen"].requires_grad_(False)
    partly["table"].register_buffer("codes", torch.ones(2))
    partly["quantised"] = Quantised(2, 2).requires_grad_(False)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected = {"table.codes", "trained.weight", "trained.bias", *(f"trained.{name}" for name in statistics)}
    assert set(trained_tensors(partly)) == expected


class Quantised(nn.Linear):
    """Keeps the state of its quantisation in the state dict, as bitsandbytes does, without a buffer."""

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.absmax"] = torch.ones(1)


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
