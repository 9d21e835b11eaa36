"""A reward for brightness trips the alarms and is rolled back; training on real data, at the same rate, does not."""

import json
from pathlib import Path

import pytest
import torch

from ckpts.resolve import resolve
from genloop.checkpoint import load_tensors
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import run_command
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.models.showo.load import load_showo
from genloop.models.showo.prompting import Layout
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.guards.build import build_guard
from genloop.training.guards.settings import GuardSettings
from genloop.training.loop import train
from genloop.training.objectives.masked_tokens import MaskedTokens
from genloop.training.settings import TrainSettings
from genloop.training.state import trained_tensors
from jobs import train_grpo
from tests.runs import ROOT
from tests.worlds.brightness_seeker import BrightnessSeeker
from tests.worlds.counting_judges import Brightness

GUARDS = GuardSettings(
    every=6,
    prompts=ROOT / "configs/prompts/shapes_heldout/evaluation_metadata.jsonl",
    num_prompts=48,
    sampling=SamplingConfig(steps=6),
    held_out_judge=JudgeSettings(kind="shapes_oracle"),
    stop_on=("reward_hacking",),
)
TRAIN = TrainSettings(num_steps=12, lr=3e-3, warmup_steps=3, save_every=6, log_every=3)


def guarded(kind: str, run: Path):
    """The shipped Show-o after a training whose judge is brightness -> its objective."""
    model, tokenizer = load_showo(resolve("shapes/showo")), load_image_tokenizer(resolve("shapes/tokenizer"))
    if kind == "hacked":
        captions = [prompt.text for prompt in GUARDS.read_prompts()]
        objective = BrightnessSeeker(model, tokenizer, captions)
    else:
        shards, layout = Shards(ROOT / "configs/data/shapes/shards"), Layout(model.config, model.text_tokenizer)
        objective = MaskedTokens(model, layout, shards, seed=0, batch_size=8, drop_captions=0.1, ends=True)
    objective.guard = build_guard(
        GUARDS, run, World(), model=model, tokenizer=tokenizer, resolve=resolve, judge=Brightness()
    )
    train(objective, TRAIN, run, World())
    return objective


def alarms(run: Path) -> list[dict]:
    path = run / "alarms.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_reward_for_brightness_is_caught_and_rolled_back(tmp_path):
    objective = guarded("hacked", tmp_path)
    kinds = {row["alarm"] for row in alarms(tmp_path)}
    assert {"reward_hacking", "image_statistics"} <= kinds
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["step"] in (6, 12) and stopped["action"] == "rollback"
    start = trained_tensors(load_showo(resolve("shapes/showo")))  # the held-out judge liked nothing better
    assert all(torch.equal(value, start[name]) for name, value in trained_tensors(objective.model).items())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    looks = [row for row in rows if "preview_judge_change" in row]
    assert looks[-1]["preview_judge_change_low"] > 0 > looks[-1]["preview_held_out_judge_change_high"]


def test_training_on_real_data_at_the_same_rate_trips_nothing(tmp_path):
    objective = guarded("clean", tmp_path)
    assert alarms(tmp_path) == [] and not (tmp_path / "stopped.json").exists()
    start = trained_tensors(load_showo(resolve("shapes/showo")))
    assert not all(torch.equal(value, start[name]) for name, value in trained_tensors(objective.model).items())


@pytest.mark.parametrize("judge", [None, Brightness()])
def test_without_a_judge_the_looks_alone_raise_the_alarm(judge, tmp_path):
    model, tokenizer = load_showo(resolve("shapes/showo")), load_image_tokenizer(resolve("shapes/tokenizer"))
    settings = GUARDS.model_copy(update={"held_out_judge": None, "stop_on": ("image_statistics",), "num_prompts": 16})
    guard = build_guard(settings, tmp_path, World(), model=model, tokenizer=tokenizer, resolve=resolve, judge=judge)
    objective = BrightnessSeeker(model, tokenizer, [prompt.text for prompt in settings.read_prompts()])
    objective.guard = guard
    train(objective, TRAIN, tmp_path, World())
    assert guard.is_stopped and {row["alarm"] for row in alarms(tmp_path)} == {"image_statistics"}


def test_an_alarm_in_train_grpo_rolls_its_result_back(tmp_path, monkeypatch):
    """Of the mechanism alone: at this rate the model breaks, and the alarm is raised with shuffled scores too."""
    monkeypatch.chdir(ROOT)
    size = ("groups=4", "group_size=8", "draws=1", "epochs=4", "kl=0", "train.num_steps=16", "train.lr=3e-3")
    guards = (f"guards.prompts={GUARDS.prompts}", "guards.every=8", "guards.num_prompts=48", "guards.sampling.steps=6")
    words = [*guards, "guards.held_out_judge=shapes_oracle", "guards.stop_on=[reward_hacking]"]
    words += ["judge=tests.worlds.counting_judges:BrightnessMaker"]
    words += ["train.schedule=constant", "train.save_every=16", "train.log_every=4"]
    assert run_command(train_grpo, ["tiny", f"out={tmp_path}", *size, *words]) == 0
    assert "reward_hacking" in {row["alarm"] for row in alarms(tmp_path)}
    assert (tmp_path / "stopped.json").exists()
    trained, start = (load_tensors(folder) for folder in (tmp_path / "showo", resolve("shapes/showo")))
    assert all(torch.equal(value, start[name]) for name, value in trained.items())
