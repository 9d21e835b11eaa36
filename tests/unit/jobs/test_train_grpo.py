"""train_grpo end to end at tiny size: resumed bit by bit, the same on any number of ranks, refused in one line."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from genloop.checkpoint import load_tensors, verify_folder
from genloop.distributed import EXIT_STOPPED
from genloop.job import PREPARED, parse, prepare, run_command
from genloop.models.showo.load import load_showo
from genloop.training.state import checkpoints
from jobs import train_grpo
from tests.runs import ROOT, start, wait_until
from tests.worlds.ranks import on_ranks

WEIGHTS = "showo/pytorch_model.safetensors"
SMALL = (
    "sampling.steps=3",
    "groups=3",
    "group_size=3",
    "draws=1",
    "slots=2",
    "train.num_steps=6",
    "train.save_every=1",
)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def words(run: Path, *more: str) -> list[str]:
    return ["tiny", *SMALL, f"out={run}", *more]


def trained(run: Path, *more: str) -> Path:
    assert run_command(train_grpo, words(run, *more)) == 0
    return run


def lines(run: Path) -> list[dict]:
    """Without times."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(("_per_s", "cpu_seconds"))} for row in rows]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The uninterrupted run of one process."""
    os.chdir(ROOT)
    return trained(tmp_path_factory.mktemp("plain") / "run")


def test_a_showo_in_the_public_layout_comes_out_and_the_metrics_say_what_it_earned(plain):
    verify_folder(plain / "showo")
    assert load_showo(plain / "showo").text_tokenizer.encode("a photo of a star")
    rows = lines(plain)
    rollouts = [row for row in rows if "reward" in row]
    assert [row["step"] for row in rollouts] == [1, 3, 5]
    assert all(row["groups_kept"] + row["groups_dropped"] == 3 and row["reward_images"] == 9 for row in rollouts)
    first = next(row for row in rows if "loss" in row)
    assert first["ratio"] == pytest.approx(1, abs=1e-6) and first["clip_share"] == 0 and first["log_prob_gap"] < 1e-5
    assert any(row["log_prob_gap"] > 0 for row in rows if "loss" in row)
    kept = sorted(folder.name for folder in (plain / "rollouts").iterdir())
    assert kept == ["0000003", "0000005"]  # the others no checkpoint needs


@pytest.mark.parametrize("place", ["images-00000", "policy-00000", "reference-00000"])
def test_a_run_that_is_killed_at_a_rollout_ends_with_the_very_bits(plain, tmp_path, place):
    """The second rollout is drawn in parts of two images; the process dies when one of the parts is there."""
    run = tmp_path / "run"
    trainer = start(train_grpo.__name__, *words(run))
    wait_until(lambda: (run / f"rollouts/0000003/{place}.safetensors").exists() or trainer.poll() is not None)
    trainer.send_signal(signal.SIGKILL)
    trainer.communicate()
    trained(run)
    assert (run / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()
    assert lines(run) == lines(plain)


def test_a_stop_in_the_middle_of_a_rollout_saves_the_steps_before_it(plain, tmp_path):
    run, seldom = tmp_path / "run", "train.save_every=6"
    trainer = start(train_grpo.__name__, *words(run, seldom))
    wait_until(lambda: (run / "rollouts/0000003/images-00000.safetensors").exists() or trainer.poll() is not None)
    trainer.send_signal(signal.SIGTERM)
    trainer.communicate()
    assert trainer.returncode == EXIT_STOPPED and checkpoints(run)
    trained(run, seldom)
    assert (run / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()
    assert lines(run) == lines(plain)


def test_a_rollout_that_is_gone_cannot_be_drawn_from_other_weights(tmp_path, capsys):
    run = trained(tmp_path / "run")
    part = run / "rollouts/0000005/policy-00000.safetensors"
    (checkpoints(run)[-1] / "manifest.json").unlink()  # resumes in the middle of the third rollout
    part.unlink()
    with pytest.raises(SystemExit, match="1"):
        run_command(train_grpo, words(run))
    assert str(part.parent) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("num_ranks", "more"),
    [(2, ()), (4, ("train.rows_per_forward=2",)), (2, ("train.zero_stage=3",)), (2, ("train.zero_stage=2",))],
)
def test_ranks_learn_what_one_learns(plain, tmp_path, monkeypatch, num_ranks, more):
    run = tmp_path / "run"
    given = words(run, *more)
    monkeypatch.setenv(PREPARED, prepare(train_grpo, parse(train_grpo, given)).digest)
    assert on_ranks(num_ranks, monkeypatch, lambda: run_command(train_grpo, given)) == [0] * num_ranks
    for row, expected in zip(lines(run), lines(plain), strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=2e-6)
    found, wanted = (load_tensors(folder / "showo") for folder in (run, plain))
    assert max(float((found[name] - wanted[name]).abs().max()) for name in wanted) < 1e-5


def test_adapters_alone_are_trained_and_merged(tmp_path):
    run = trained(tmp_path / "run", "lora.rank=2", "train.num_steps=2", "train.lr=1e-2")
    assert (run / "adapter/adapter_model.safetensors").is_file()
    before, after = load_tensors(ROOT / "ckpts/shapes/showo"), load_tensors(run / "showo")
    moved = {name for name in before if not np.array_equal(before[name].numpy(), after[name].numpy())}
    assert moved and all(".self_attn." in name or ".mlp." in name for name in moved)


@pytest.mark.parametrize(
    "more",
    [
        ("variant=released", "guidance_scale=0", "states=trajectory", "draws=2"),
        ("states=full", "kl=0", "train.ema=0.9"),
        ("ratio=sequence", "states=trajectory", "critical_steps=2", "advantage=group_mean"),
        (
            "guards.every=1",
            "guards.prompts=configs/prompts/shapes_tiny/evaluation_metadata.jsonl",
            "guards.num_prompts=2",
        ),
        ("judge=shapes_oracle", "shuffle_scores=true", "groups=12"),
    ],
)
def test_options_run(tmp_path, more):
    run = trained(tmp_path / "run", *more, "train.num_steps=2")
    rows = [row for row in lines(run) if "loss" in row]
    assert len(rows) == 2 and rows[0]["clip_share"] == 0
    assert (rows[1]["log_prob_gap"] > 1e-4) and (abs(rows[1]["ratio"] - 1) < 1e-6) == (more[0] == "variant=released")


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("held_out=[configs/prompts/shapes_tiny/generation_prompts.txt]", "shapes_tiny/generation_prompts.txt:1"),
        ("held_out=[nowhere.txt]", "nowhere.txt"),
        ("judge.kind=llava judge.options.checkpoint=nowhere", "nowhere"),
        ("prompts=configs/prompts/shapes_tiny/generation_prompts.txt", "metadata"),
        ("sampling.token_temperature=0.7", "sampling.token_temperature"),
        ("lora.dropout=0.1", "lora.dropout"),
        ("train.ema=0.5", "train.ema"),
        ("group_size=1", "group_size"),
        ("states=full draws=2", "draws"),
        ("states=trajectory draws=9", "draws"),
        ("critical_steps=2", "critical_steps"),
        ("steps_per_epoch=1000", "steps_per_epoch"),
        ("tokenizer=shapes/magvit2", "tokenizer"),
        ("start=nowhere", "nowhere"),
    ],
)
def test_bad_input_is_one_line_that_names_it(tmp_path, capsys, word, named):
    assert run_command(train_grpo, words(tmp_path / "run", *word.split(" "))) == 2
    found = capsys.readouterr().err
    assert named in found and found.count("\n") == 1 and not (tmp_path / "run").exists()
