"""The job that trains judges, end to end at tiny size: data -> judge, resumed, on two ranks, adapted, refused."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from genloop.checkpoint import load_tensors, verify_folder
from genloop.data.images import encode_png
from genloop.data.judge.dataset import read_judge_set
from genloop.data.shards import Sample, write_shard
from genloop.job import parse, run_command
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.settings import JudgeSettings
from jobs import build_judge_data, train_judge
from tests.runs import ROOT, refusal, run_ranks, start, wait_until
from tests.worlds.judge_data import QUESTIONS_FILE, SCENES, both_splits, paths

MORE = ["batch.groups=2", "batch.paths=3", "loss.names=0.5", "loss.reason=0.5"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    return both_splits(tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def trained(generated, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    os.chdir(ROOT)
    assert run_command(train_judge, ["tiny", f"out={out}", f"data.paths.shards={generated}", *MORE]) == 0
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_tensors(run / "judge")


def check_equal_but_for_rounding(one: Path, other: Path) -> None:
    """The same losses; of weights the mean difference, as AdamW moves those whose gradient is rounding by its sign."""
    for row, again in zip(lines(one), lines(other), strict=True):
        assert all(again[name] == pytest.approx(row[name], rel=1e-3) for name in row if name.startswith("loss"))
    a, b = weights(one), weights(other)
    assert all(float((a[name] - b[name]).abs().mean()) < 1e-4 for name in a)


def test_the_committed_examples_are_what_the_job_makes(tmp_path):
    assert run_command(build_judge_data, ["tiny", f"out={tmp_path}"]) == 0
    assert files(tmp_path / "shards") == files(SCENES)


def test_a_judge_comes_out_that_the_suite_loads_and_asks(trained, generated):
    verify_folder(trained / "judge")
    assert (trained / "judge/questions.yaml").read_bytes() == QUESTIONS_FILE.read_bytes()
    settings = JudgeSettings(kind="llava", options={"checkpoint": str(trained / "judge"), "probability": "two_way"})
    check_judge(settings, Path, ["outcome", "clarity", "potential"])
    judge = build_judge(settings, Path)
    data = read_judge_set(generated / "val")
    pixels = torch.from_numpy(np.stack([data.images[i] for i in range(4)])).permute(0, 3, 1, 2).float() / 255
    p_yes = judge.p_yes("outcome", [data.examples[0].prompt] * 4, pixels)
    assert ((p_yes > 0) & (p_yes < 1)).all()
    assert len(judge.reasons([data.examples[0].prompt] * 4, pixels)) == 4


def test_the_run_says_what_it_learned(trained):
    rows = lines(trained)
    assert [row["step"] for row in rows] == [5, 10]
    terms = {"outcome", "potential", "clarity", "pairs", "scenes", "cells", "names", "reason"}
    assert {f"loss_{name}" for name in terms} <= set(rows[0])
    summary = json.loads((trained / "summary.json").read_text())
    assert set(summary["overall"]) == {"outcome", "clarity", "potential", "scenes"}
    assert set(summary["by_step"]["potential"]) == {"4", "9"}
    assert "| potential | 9 |" in (trained / "table.md").read_text()
    assert "potential: calibration error" in (trained / "reliability.svg").read_text()
    calibration = json.loads((trained / "judge/calibration.json").read_text())
    assert set(calibration) == {"outcome", "clarity", "potential"}
    assert calibration["outcome"]["a"] == summary["calibration"]["outcome"]["a"]


def test_a_killed_run_ends_with_the_bytes_of_an_uninterrupted_one(generated, trained, tmp_path):
    words = ["tiny", f"out={tmp_path / 'run'}", f"data.paths.shards={generated}", *MORE]
    trainer = start("train_judge", *words)
    wait_until(lambda: any((tmp_path / "run/checkpoints").glob("step-*")) or trainer.poll() is not None)
    trainer.kill()
    trainer.communicate()
    assert run_command(train_judge, words) == 0
    assert files(tmp_path / "run/judge") == files(trained / "judge")
    assert (tmp_path / "run/summary.json").read_bytes() == (trained / "summary.json").read_bytes()


def test_two_ranks_learn_and_measure_what_one_does(generated, trained, tmp_path):
    run_ranks("train_judge", "tiny", f"out={tmp_path / 'run'}", f"data.paths.shards={generated}", *MORE)
    check_equal_but_for_rounding(trained, tmp_path / "run")
    summaries = [json.loads((run / "summary.json").read_text())["overall"] for run in (trained, tmp_path / "run")]
    for question, row in summaries[0].items():
        assert row["n"] == summaries[1][question]["n"]
        assert row["auc"][0] == pytest.approx(summaries[1][question]["auc"][0], abs=0.05)


def test_micro_batches_and_saved_memory_change_only_the_last_bits(generated, trained, tmp_path):
    words = [f"data.paths.shards={generated}", *MORE, "train.rows_per_forward=1"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words, "train.gradient_checkpointing=true"]) == 0
    check_equal_but_for_rounding(trained, tmp_path)


def test_training_goes_on_from_a_judge_with_its_questions(generated, trained, tmp_path):
    words = [f"start={trained / 'judge'}", "questions=null", f"data.paths.shards={generated}", *MORE]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words, "train.num_steps=1", "train.lr=1e-9"]) == 0
    assert (tmp_path / "judge/questions.yaml").read_bytes() == QUESTIONS_FILE.read_bytes()
    one, two = weights(trained), weights(tmp_path)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


def test_parts_have_their_own_learning_rates_and_may_be_frozen(trained, tmp_path):
    words = [f"start={trained / 'judge'}", "questions=null", "vision_lr=0", "projector_lr=1e-9", "train.warmup_steps=0"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words, "train.num_steps=1"]) == 0
    before, after = weights(trained), weights(tmp_path)
    moved = {name: float((before[name] - after[name]).abs().max()) for name in before}
    assert all(change == 0 for name, change in moved.items() if name.startswith("vision_tower."))
    assert 0 < max(change for name, change in moved.items() if "multi_modal_projector" in name) < 1e-8
    assert max(change for name, change in moved.items() if name.startswith("language_model.")) > 1e-4
    saved = load_tensors(next((tmp_path / "checkpoints").iterdir()))
    assert not any("vision_tower" in name for name in saved)  # a checkpoint keeps what is trained


def test_half_precision_trains_weights_of_full_precision(generated, trained, tmp_path):
    words = [
        f"data.paths.shards={generated}",
        *MORE,
        "saved_dtype=bfloat16",
        "train.precision=bf16",
        "train.rows_per_forward=3",
    ]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words]) == 0
    assert parse(train_judge, ["tiny", *words]).train.precision == "bf16"
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.bfloat16}
    saved = load_tensors(sorted((tmp_path / "checkpoints").iterdir())[-1])
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    for row, other in zip(lines(trained), lines(tmp_path), strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_frozen_parts_and_adapters_go_with_every_precision(trained, tmp_path, precision):
    words = [f"start={trained / 'judge'}", "questions=null", "saved_dtype=bfloat16", f"train.precision={precision}"]
    words += ["lora.rank=2", "lora.dropout=0.1", "vision_lr=0", "train.num_steps=2", "eval_every=1"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words]) == 0
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.bfloat16}


def test_it_measures_on_the_way(generated, tmp_path):
    words = [f"data.paths.shards={generated}", *MORE, "eval_every=4", "train.log_every=4", "train.num_steps=8"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path}", *words]) == 0
    measured = [row for row in lines(tmp_path) if "outcome_auc" in row]
    assert [row["step"] for row in measured] == [4]
    assert 0 <= measured[0]["potential_auc_within"] <= 1


def test_published_conversations_train_a_judge(trained, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(encode_png(np.zeros((30, 20, 3), np.uint8)))
    turns = [{"from": "human", "value": "<image> a star : done ?"}, {"from": "gpt", "value": "yes"}]
    (tmp_path / "orm.json").write_text(json.dumps([{"image": "a.png", "conversations": turns}] * 3))
    words = [f"data.orm.conversations={tmp_path / 'orm.json'}", f"data.orm.images={tmp_path / 'images'}"]
    words += ["batch.scenes=0", "batch.conversations=3", "train.lr=1e-2", "train.num_steps=30"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path / 'run'}", *words]) == 0
    rows = lines(tmp_path / "run")
    assert rows[-1]["loss_words"] < 0.7 * rows[0]["loss_words"]


def test_conversations_of_held_out_prompts_are_measured(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(60):
        name, color = f"{number}.png", 255 * (number % 2)
        (tmp_path / "images" / name).write_bytes(encode_png(np.full((24, 24, 3), color, np.uint8)))
        words = ("star", "circle", "square", "heart", "moon")[number // 2 % 5], ("red", "blue", "black")[number // 20]
        said = "yes" if color else "no"
        asked = f"<image>\na photo of a {words[1]} {words[0]} : {'clear' if number >= 40 else 'done'} ?"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
        rows.append({"id": name, "image": name, "conversations": turns})
    (tmp_path / "orm.json").write_text(json.dumps(rows))
    words = [f"data.orm.conversations={tmp_path / 'orm.json'}", f"data.orm.images={tmp_path / 'images'}"]
    words += ["data.orm.val_share=0.5", "batch.scenes=0", "batch.conversations=8", "eval_every=10"]
    words += ["train.lr=1e-2", "train.num_steps=40", "train.log_every=10"]
    assert run_command(train_judge, ["tiny", f"out={tmp_path / 'one'}", *words]) == 0
    summary = json.loads((tmp_path / "one/summary.json").read_text())
    assert set(summary["overall"]) == {"outcome", "clarity", "scenes"}
    assert list(summary["by_step"]["clarity"]) == ["preview"] and list(summary["by_step"]["outcome"]) == ["final"]
    outcome = summary["overall"]["outcome"]
    assert 0 < outcome["prompts"] < 10 and outcome["n"] == 4 * outcome["prompts"] and outcome["auc"][0] == 1
    assert [row["step"] for row in lines(tmp_path / "one") if "outcome_auc" in row] == [10, 20, 30]
    run_ranks("train_judge", "tiny", f"out={tmp_path / 'two'}", *words)
    again = json.loads((tmp_path / "two/summary.json").read_text())["overall"]["outcome"]
    assert (again["n"], again["auc"][0]) == (outcome["n"], 1)


def test_adapters_leave_the_weights_beside_them_until_they_are_merged(trained, tmp_path):
    words = ["tiny", f"out={tmp_path / 'run'}", f"start={trained / 'judge'}", "questions=null", "lora.rank=2"]
    words += ["vision_lr=0", "train.lr=1e-2"]
    assert run_command(train_judge, words) == 0
    before, after = weights(trained), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    assert json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())["lora_alpha"] == 16
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("self_attn.q_proj.weight" in name for name in moved)
    assert not any("embed_tokens" in name or "norm" in name or "vision_tower" in name for name in moved)


def test_images_that_are_not_there_or_cannot_be_read_are_named(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"no picture")
    turns = [{"from": "human", "value": "<image> a star : done ?"}, {"from": "gpt", "value": "yes"}]
    rows = [{"id": name, "image": f"{name}.png", "conversations": turns} for name in ("a", "b", "c")]
    (tmp_path / "orm.json").write_text(json.dumps(rows))
    words = [f"data.orm.conversations={tmp_path / 'orm.json'}", f"data.orm.images={tmp_path / 'images'}"]
    command = ["tiny", f"out={tmp_path / 'run'}", *words, "batch.conversations=1"]
    line = refusal(train_judge, command, tmp_path, capsys)
    assert (
        "data.orm.images: 2 of 3 images are missing, the first is" in line and "images/b.png of conversation b" in line
    )
    (tmp_path / "orm.json").write_text(json.dumps(rows[:1]))
    with pytest.raises(SystemExit):
        run_command(train_judge, command)
    assert re.search(
        r"genloop: failed: .*not a PNG, JPEG or WebP image.* \[image .*a.png; rank 0, step 1\]", capsys.readouterr().err
    )


def test_data_sets_without_held_out_examples_train_a_judge_that_nobody_measured(tmp_path, capsys):
    shutil.copytree(SCENES / "train", tmp_path / "scenes/train")
    words = ["tiny", f"out={tmp_path / 'run'}", f"data.scenes.shards={tmp_path / 'scenes'}", "train.num_steps=1"]
    assert "eval_every: nothing is held out to measure on" in refusal(
        train_judge, [*words, "eval_every=1"], tmp_path, capsys
    )
    assert run_command(train_judge, words) == 0
    assert "what the judge is worth will not be measured" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/judge/calibration.json").read_text()) == {}
    check_judge(JudgeSettings(kind="llava", options={"checkpoint": str(tmp_path / "run/judge")}), Path, ["outcome"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (None, "no shards (*.tar) in"),
        ({"txt": b"a star"}, "data.scenes.shards: "),
        ({"png": b"", "json": b"{}"}, "sample 0: json is not a judge's example (KeyError: 'prompt')"),
    ],
)
@pytest.mark.parametrize("side", ["train", "val"])
def test_shards_that_hold_no_examples_are_refused(tmp_path, capsys, side, fields, message):
    shutil.copytree(SCENES, tmp_path / "scenes")
    shutil.rmtree(tmp_path / "scenes" / side)
    (tmp_path / "scenes" / side).mkdir()
    if fields is not None:
        write_shard(tmp_path / "scenes" / side / "0.tar", [Sample("0", fields)])
    command = ["tiny", f"out={tmp_path / 'run'}", f"data.scenes.shards={tmp_path / 'scenes'}"]
    assert message in refusal(train_judge, command, tmp_path, capsys)


def test_questions_that_cannot_be_asked_are_refused(trained, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text('outcome: "<image> {prompt} : splendid ?"\n')
    words = ["tiny", f"out={tmp_path / 'run'}", f"questions={tmp_path / 'mine.yaml'}", f"start={trained / 'judge'}"]
    error = refusal(train_judge, words, tmp_path, capsys)
    assert "mine.yaml: outcome has words that the judge's tokenizer does not know: 'system', 'You'" in error
    assert f"'splendid'; use the questions that {trained / 'judge'} was trained on" in error


def test_a_loss_without_its_wording_is_refused(generated, tmp_path, capsys):
    groups = ["batch.groups=2", f"data.paths.shards={generated}"]
    (tmp_path / "mine.yaml").write_text('outcome: "<image> {prompt} ?"\n')
    words = ["tiny", f"out={tmp_path / 'run'}", f"questions={tmp_path / 'mine.yaml'}"]
    assert "has no clarity, potential" in refusal(train_judge, [*words, *groups], tmp_path, capsys)
    assert "has no reason" in refusal(train_judge, [*words, "loss.reason=1"], tmp_path, capsys)


def test_changed_data_is_another_run(generated, tmp_path, capsys):
    shutil.copytree(SCENES, tmp_path / "scenes")
    words = ["tiny", f"out={tmp_path / 'run'}", f"data.scenes.shards={tmp_path / 'scenes'}", "train.num_steps=1"]
    assert run_command(train_judge, words) == 0
    paths(tmp_path / "scenes/train/more")
    shutil.copy(tmp_path / "scenes/train/more/00000.tar", tmp_path / "scenes/train/00009.tar")
    assert run_command(train_judge, words) == 2
    assert "another content of `data.scenes.train`" in capsys.readouterr().err
