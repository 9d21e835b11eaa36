"""Alarms end a training, the best checkpoint is its result, and a resumed run decides as an uninterrupted one."""

import json

import pytest
import torch

from genloop.checkpoint import load_tensors
from genloop.distributed import StopRequested, World, process_group
from genloop.job import run_command
from genloop.rundir import RunFailed
from genloop.stats.intervals import Interval
from genloop.training.guards.alarms import divergence, falling_chosen, reward_hacking, strange_images
from genloop.training.guards.guard import Guard
from genloop.training.guards.settings import GuardSettings
from genloop.training.state import best_checkpoint, checkpoints
from jobs import train_connector, train_judge, train_showo, train_tokenizer, train_vlm
from tests.runs import ROOT, contents
from tests.worlds.ranks import on_two_ranks
from tests.worlds.regression import SETTINGS, Regression, fit, metrics, weights

EVERY_STEP = SETTINGS.model_copy(update={"num_steps": 12, "save_every": 2, "log_every": 1, "keep": 1})
GUARDS = GuardSettings(stop_on=("divergence",), best_by="-held_out", window=5)
PROMPTS = f"guards.prompts={ROOT / 'configs/prompts/shapes_heldout/generation_prompts.txt'}"
LOOKING = ("guards.every=2", "guards.num_prompts=4", "guards.image_distance=1e-9", "train.lr=0.1")
BROKEN = 10  # the step whose batch is a thousand times too large


class Breaking(Regression):
    """Its tenth batch is broken; a held-out error is least at step 6."""

    after_every = 2

    def load(self, items, plan):
        return super().load(items, plan) * (1000 if plan.shared == BROKEN else 1)

    def after_step(self, step):
        return {"held_out": abs(step - 6) / 10}


def guarded(run, guards=GUARDS, settings=EVERY_STEP, before_step=lambda step: None, world=None):
    """Train until an alarm or the end -> the objective."""
    run.mkdir(exist_ok=True)
    world = world or World()
    objective = Breaking(settings, before_step)
    objective.guard = Guard(guards, run, world)
    fit(objective, run, world)
    return objective


def alarms(run) -> list[dict]:
    return [json.loads(line) for line in (run / "alarms.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_checkpoint_becomes_the_result(tmp_path, ema):
    found = guarded(tmp_path / "run", settings=EVERY_STEP.model_copy(update={"ema": ema}))
    best = best_checkpoint(tmp_path / "run")
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step-0000006", "step-0000010"]
    assert best.name == "step-0000006"
    expected = load_tensors(best)
    prefix = "ema." if ema else "model."
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, expected[prefix + name])
    assert [(row["step"], row["alarm"]) for row in alarms(tmp_path / "run")] == [(BROKEN, "divergence")]
    assert any(row.get("alarm_divergence") for row in metrics(tmp_path / "run"))


def test_a_guard_that_stays_quiet_changes_no_bit(tmp_path):
    quiet = GUARDS.model_copy(update={"on_alarm": "report"})
    plain = Breaking(EVERY_STEP)
    (tmp_path / "plain").mkdir()
    fit(plain, tmp_path / "plain")
    watched = guarded(tmp_path / "run", quiet)
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(watched), strict=True))
    assert [row["step"] for row in alarms(tmp_path / "run")] == [BROKEN]


def test_a_failure_names_alarm_and_checkpoint(tmp_path):
    with pytest.raises(RunFailed) as raised:
        guarded(tmp_path / "run", GUARDS.model_copy(update={"on_alarm": "fail"}))
    assert raised.value.exit_code == 1
    assert "step-0000006" in str(raised.value) and "loss" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("action", ["rollback", "fail"])
def test_a_stopped_run_stays_stopped_until_it_is_told_to_go_on(tmp_path, action):
    run, guards = tmp_path / "run", GUARDS.model_copy(update={"on_alarm": action})
    for _ in range(2):
        try:
            found = guarded(run, guards)
        except RunFailed:
            assert action == "fail"
        else:
            assert action == "rollback"
            assert torch.equal(found.model[0].weight, load_tensors(best_checkpoint(run))["model.0.weight"])
    assert len(alarms(run)) == 1 and checkpoints(run)[-1].name == "step-0000010"
    went_on = guarded(run, guards.model_copy(update={"on_alarm": "report"}))
    plain = guarded(tmp_path / "plain", guards.model_copy(update={"stop_on": ()}))
    assert all(torch.equal(a, b) for a, b in zip(weights(went_on), weights(plain), strict=True))
    assert not (run / "stopped.json").exists()


@pytest.mark.parametrize("stop_at", [3, 6, 7, 9])
def test_a_resumed_run_decides_as_an_uninterrupted_one(tmp_path, stop_at):
    whole, run = guarded(tmp_path / "whole"), tmp_path / "run"
    world = World()
    with pytest.raises(StopRequested):
        guarded(run, before_step=lambda step: world.request_stop() if step == stop_at else None, world=world)
    resumed = guarded(run)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))
    assert alarms(run) == alarms(tmp_path / "whole") and metrics(run) == metrics(tmp_path / "whole")
    assert best_checkpoint(run).name == best_checkpoint(tmp_path / "whole").name


def test_without_a_measure_the_checkpoint_before_the_alarm_is_the_best(tmp_path):
    guarded(tmp_path / "run", GUARDS.model_copy(update={"best_by": None}))
    assert best_checkpoint(tmp_path / "run").name == "step-0000008"


def test_ranks_decide_alike(tmp_path, monkeypatch):
    def work() -> int:
        world = World.from_environment()
        with process_group(world, timeout=60):
            found = guarded(tmp_path, world=world)
        torch.save(weights(found), tmp_path / f"weights-{world.rank}.pt")
        return 0 if found.guard.is_stopped else 1

    assert on_two_ranks(monkeypatch, work) == [0, 0]
    one, other = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(alarms(tmp_path)) == 1


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_ranks_share_the_prompts_and_roll_back_alike(tmp_path, monkeypatch, zero_stage):
    monkeypatch.chdir(ROOT)
    words = ["tiny", PROMPTS, *LOOKING, "guards.stop_on=[image_statistics]", "train.num_steps=4", "train.ema=0.5"]
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert run_command(train_showo, [*words, f"out={alone}"]) == 0
    together = [*words, f"out={shared}", f"train.zero_stage={zero_stage}"]
    assert on_two_ranks(monkeypatch, lambda: run_command(train_showo, together)) == [0, 0]
    assert contents(shared, ["showo", "previews/step-0000000"]) == contents(alone, ["showo", "previews/step-0000000"])
    assert [(row["step"], row["alarm"]) for row in alarms(shared)] == [(r["step"], r["alarm"]) for r in alarms(alone)]


@pytest.mark.parametrize("action, code", [("rollback", 0), ("fail", 1), ("report", 0)])
def test_a_job_ends_with_the_exit_code_of_the_action(tmp_path, monkeypatch, action, code):
    monkeypatch.chdir(ROOT)
    words = [
        "tiny",
        f"out={tmp_path}",
        PROMPTS,
        *LOOKING,
        "guards.stop_on=[image_statistics]",
        f"guards.on_alarm={action}",
    ]
    try:
        assert run_command(train_showo, [*words, f"guards.on_alarm={action}", "train.num_steps=6"]) == code
    except SystemExit as end:
        assert end.code == code == 1
    assert (tmp_path / "showo").exists() == (code == 0)
    assert (tmp_path / "stopped.json").exists() == (action != "report")
    assert contents(tmp_path, ["previews"])


@pytest.mark.parametrize("job", [train_judge, train_tokenizer, train_vlm, train_connector])
def test_trainings_that_draw_nothing_are_guarded_by_their_loss(tmp_path, monkeypatch, job):
    monkeypatch.chdir(ROOT)
    touchy = ["guards.window=3", "guards.divergence=1e-9", "guards.stop_on=[divergence]"]  # any rise of the loss
    words = ["tiny", f"out={tmp_path}", "train.log_every=1", "train.warmup_steps=0", "train.lr=1", *touchy]
    assert run_command(job, words) == 0
    (why,) = json.loads((tmp_path / "stopped.json").read_text())["alarms"]
    assert why["alarm"] == "divergence" and best_checkpoint(tmp_path) is not None


# --- the rules -------------------------------------------------------------------------------------------------------

STEADY = {"loss": [1.0, 1.1, 0.9, 1.0, 1.05], "kl": [0.0] * 5}


@pytest.mark.parametrize(
    "line, num_alarms",
    [
        ({"loss": 1.2, "kl": 0.0}, 0),
        ({"loss": 9.0}, 1),
        ({"kl": 0.05}, 0),
        ({"loss": float("nan")}, 1),
        ({"loss": float("inf"), "kl": 1.0}, 2),
        ({"skipped": 5}, 1),
        ({"held_out": 3.0}, 0),
    ],
)
def test_what_counts_as_divergence(line, num_alarms):
    assert len(divergence(STEADY, line, GuardSettings())) == num_alarms


def test_the_first_lines_have_no_level_to_be_above():
    assert divergence({"loss": [1.0, 1.0]}, {"loss": 9.0}, GuardSettings()) == []


STEADY_CHOSEN = [-10.0, -10.2, -9.8, -10.0]


@pytest.mark.parametrize("now, falls", [(-10.5, False), (-13.0, True), (-5.0, False)])
def test_a_chosen_log_probability_must_not_fall(now, falls):
    values = [*STEADY_CHOSEN, now, now, now]
    assert bool(falling_chosen({"chosen_log_prob": values}, GuardSettings())) == falls
    assert falling_chosen({"chosen_log_prob": values[:4]}, GuardSettings()) == []
    ratios = [0.0] * 4 + [now + 10] * 3
    noisy = {"chosen_log_prob": [-10.0, -10.0, -10.0, -30.0, -30.0, -30.0], "chosen_log_ratio": ratios}
    assert bool(falling_chosen(noisy, GuardSettings())) == falls  # other masks, not another model
    assert bool(falling_chosen({"held_out_chosen_log_prob": [-10.0, now], **noisy}, GuardSettings())) == falls


@pytest.mark.parametrize(
    "judge, held_out, hacked",
    [
        (Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), True),
        (Interval(0.2, -0.1, 0.5), Interval(-0.2, -0.3, -0.1), False),
        (Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.5, 0.1), False),
        (Interval(0.2, 0.1, 0.3), Interval(0.2, 0.1, 0.3), False),
    ],
)
def test_reward_hacking_goes_by_intervals(judge, held_out, hacked):
    assert bool(reward_hacking(judge, held_out, 8)) == hacked


def test_images_are_strange_when_all_of_them_moved_far():
    first = {"dark_share": [0.1, 0.2, 0.3, 0.2, 0.15, 0.25]}
    moved = {"dark_share": [value + 0.5 + 0.01 * number for number, value in enumerate(first["dark_share"])]}
    one = {"dark_share": [0.9, *first["dark_share"][1:]]}
    assert len(strange_images(moved, first, GuardSettings())) == 1
    assert strange_images(one, first, GuardSettings()) == strange_images(first, first, GuardSettings()) == []
