"""train_dpo end to end at tiny size: what it writes, what it refuses, where it stops, the reference it keeps."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ckpts.resolve import resolve
from genloop.checkpoint import load_tensors, verify_folder
from genloop.data.pairs.pair import CodeSpace
from genloop.data.pairs.shards import PairShards
from genloop.job import run_command
from genloop.models.showo.load import load_showo, save_showo
from genloop.registry import require
from genloop.training.state import checkpoints
from jobs import generate, train_dpo
from tests.runs import ROOT, refusal, start, wait_until
from tests.worlds.pairs import write_pairs
from tests.worlds.preference import write_shapes_pairs
from tests.worlds.tiny_showo import tiny_showo

FEW = ["train.num_steps=2", "train.save_every=1", "train.log_every=1", "train.warmup_steps=0"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def arguments(run: Path, *more: str) -> list[str]:
    return ["tiny", f"out={run}", *FEW, *more]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def averaged(run: Path) -> list[str]:
    steps = ["train.num_steps=4", "train.save_every=2", "train.log_every=1"]
    return ["tiny", f"out={run}", *steps, "train.ema=0.5"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Four steps that measure and save."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run = tmp_path_factory.mktemp("plain") / "run"
        assert run_command(train_dpo, averaged(run)) == 0
    return run


def test_the_committed_pairs_are_those_of_the_test_world(tmp_path):
    write_shapes_pairs(tmp_path)
    for file in sorted((ROOT / "configs/data/shapes/pairs").rglob("*.*")):
        assert (tmp_path / file.relative_to(ROOT / "configs/data/shapes/pairs")).read_bytes() == file.read_bytes()


def test_a_run_leaves_a_checkpoint_that_generates_and_its_metrics(plain, tmp_path):
    verify_folder(plain / "showo")
    assert load_showo(plain / "showo").text_tokenizer.encode("a photo of a star")
    words = ["tiny", f"out={tmp_path}", "limit=1", "images_per_prompt=1", "sampling.steps=2", "search.strategy=none"]
    assert run_command(generate, [*words, f"generator.options.showo={plain / 'showo'}"]) == 0
    rows = {key: row for row in lines(plain) for key in row}
    wanted = {
        "loss_dpo",
        "loss_dpop",
        "loss_replay",
        "chosen_log_prob",
        "rejected_log_prob",
        "margin",
        "accuracy",
        "kl",
    }
    wanted |= {"held_out_accuracy_low", "log_ratio_spread", "grad_norm_replay", "grad_norm_preference"}
    assert wanted <= rows.keys()
    first = lines(plain)[0]
    assert first["step"] == 0 and first["held_out_margin"] == 0 and first["kl"] == 0


def test_what_was_computed_of_the_reference_is_read_again_and_only_what_lacks_computed(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    shutil.rmtree(run / "checkpoints")
    before = np.load(run / "reference/train/00000.npy")
    torn = run / "reference/held_out/00000.npy"
    torn.write_bytes(torn.read_bytes()[:40])
    marked = before.copy()
    marked[:, 0, 0] += 0.0005  # below what the self-test allows
    np.save(run / "reference/train/00000.npy", marked)
    assert run_command(train_dpo, averaged(run)) == 0
    assert np.array_equal(np.load(run / "reference/train/00000.npy"), marked)
    assert torn.read_bytes() == (plain / "reference/held_out/00000.npy").read_bytes()


def test_a_policy_that_is_not_the_reference_stops_before_step_1(plain, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    shutil.rmtree(run / "checkpoints")
    stored = run / "reference/train/00000.npy"
    np.save(stored, np.load(stored) + np.float32(3))
    with pytest.raises(SystemExit) as caught:
        run_command(train_dpo, averaged(run))
    assert caught.value.code == 1
    assert "self-test" in capsys.readouterr().err and not (run / "checkpoints").exists()


def test_another_reference_is_compared_with(plain, tmp_path):
    run = tmp_path / "run"
    assert run_command(train_dpo, arguments(run, f"reference={plain / 'showo'}")) == 0
    assert lines(run)[0]["held_out_margin"] != 0


def test_adapters_come_out_apart_and_merged_with_the_output_they_had(tmp_path):
    run = tmp_path / "run"
    assert run_command(train_dpo, arguments(run, "lora.rank=2", "train.lr=0.01")) == 0
    before, after = load_tensors(resolve("shapes/showo")), load_tensors(run / "showo")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed and all(".layers." in name and name.endswith("weight") for name in changed)
    merged, base = load_showo(run / "showo"), load_showo(resolve("shapes/showo"))
    adapted = require("peft", "train").PeftModel.from_pretrained(base, run / "adapter")
    ids = torch.randint(300, (2, 20), generator=torch.Generator().manual_seed(0))
    allow = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(adapted.base_model.model(ids, allow), merged(ids, allow), atol=1e-4)


def test_the_released_variant_runs(tmp_path):
    words = ("variant=released", "guidance_scale=0", "sft=0.1", "draws=1", "replay=null")
    assert run_command(train_dpo, arguments(tmp_path, *words)) == 0
    assert lines(tmp_path)[1]["loss_sft"] > 0


def test_averages_are_resumed(plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    shutil.rmtree(checkpoints(run)[-1])
    shutil.rmtree(run / "showo")
    assert [folder.name for folder in checkpoints(run)] == ["step-0000002"]
    assert run_command(train_dpo, averaged(run)) == 0
    saved, again = (load_tensors(checkpoints(folder)[-1]) for folder in (plain, run))
    assert any(name.startswith("ema.") for name in saved)
    assert all(again[name].equal(value) for name, value in saved.items())
    name = "showo/pytorch_model.safetensors"
    assert (run / name).read_bytes() == (plain / name).read_bytes()


def test_a_loss_that_is_no_number_names_the_pair_and_leaves_the_last_checkpoint(tmp_path, capsys):
    words = arguments(tmp_path, "train.lr=1e9", "train.num_steps=40", "train.grad_clip=1e9", "log_gradients_every=0")
    with pytest.raises(SystemExit) as caught:
        run_command(train_dpo, [*words, "eval_every=0", "meter_every=0"])
    assert caught.value.code == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "pairs/train/00000.tar: sample 000" in said
    verify_folder(checkpoints(tmp_path)[-1])


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_and_the_run_goes_on_later(tmp_path):
    words = ("tiny", f"out={tmp_path}", "train.save_every=2", "eval_every=0", "meter_every=0", "log_gradients_every=0")
    words = (*words, "train.num_steps=100000")
    trainer = start(train_dpo.__name__, *words)
    wait_until(lambda: checkpoints(tmp_path) or trainer.poll() is not None)
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))  # a write stops half-way
    _, said = trainer.communicate()
    assert trainer.returncode == 1 and str(tmp_path / "checkpoints") in said
    saved = checkpoints(tmp_path)[-1]
    verify_folder(saved)
    again = start(train_dpo.__name__, *words)
    wait_until(lambda: checkpoints(tmp_path)[-1] > saved or again.poll() is not None)
    again.kill()
    again.communicate()
    assert checkpoints(tmp_path)[-1] > saved


def _other_tokenizer(folder: Path) -> list[str]:
    pairs = list(PairShards(ROOT / "configs/data/shapes/pairs/val"))
    write_pairs(folder / "train", pairs, codebook=CodeSpace(351, "ab" * 32))
    return [f"pairs={folder}"]


def _empty(folder: Path) -> list[str]:
    (folder / "train").mkdir(parents=True)
    return [f"pairs={folder}"]


def _truncated(folder: Path) -> list[str]:
    shutil.copytree(ROOT / "configs/data/shapes/pairs", folder)
    file = folder / "train/00000.tar"
    file.write_bytes(file.read_bytes()[:30000])
    return [f"pairs={folder}"]


def _other_shape(folder: Path) -> list[str]:
    save_showo(tiny_showo(), folder)
    return [f"reference={folder}"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_other_tokenizer, "another image tokenizer"),
        (_empty, "train"),
        (_truncated, "00000.tar"),
        (_other_shape, "reference"),
        (lambda folder: ["pairs=configs"], "pairs"),
        (lambda folder: ["variant=released"], "guidance_scale"),
        (lambda folder: ["sft=1"], "sft"),
        (lambda folder: ["replay=configs"], "configs"),
        (lambda folder: ["lora.rank=2", "lora.targets=[q_prog]"], "lora.targets"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(tmp_path, capsys, make, said):
    words = make(tmp_path / "given")
    assert said in refusal(train_dpo, arguments(tmp_path / "run", *words), tmp_path, capsys)


def test_the_published_constant_changes_no_weight_and_reinforce_does(tmp_path):
    judged = ("judge.kind=llava", "judge.options.checkpoint=shapes/judge", "judge_group=2", "sampling.steps=2")
    words = (*judged, "eval_every=0", "meter_every=0", "log_gradients_every=0", "train.batch_size=2")
    weights = {}
    for guidance in ("none", "released", "reinforce"):
        run = tmp_path / guidance
        assert run_command(train_dpo, arguments(run, *words, f"judge_guidance={guidance}")) == 0
        weights[guidance] = (run / "showo/pytorch_model.safetensors").read_bytes()
    assert weights["released"] == weights["none"] != weights["reinforce"]
    rows = {key: row for row in lines(tmp_path / "released") for key in row}
    assert rows["loss_judge"]["loss_judge"] > 0 and rows["reward"]["reward_images"] == 2


def test_a_control_without_the_preference_term_takes_the_same_steps_on_the_replay_alone(tmp_path):
    weights = ["preference_weight=0", "dpop=0"]
    assert run_command(train_dpo, arguments(tmp_path / "a", *weights)) == 0
    assert run_command(train_dpo, arguments(tmp_path / "b", *weights, "shuffle_pairs=true")) == 0
    assert run_command(train_dpo, arguments(tmp_path / "c", "shuffle_pairs=true")) == 0
    assert run_command(train_dpo, arguments(tmp_path / "d")) == 0
    a, b, c, d = (load_tensors(tmp_path / run / "showo") for run in "abcd")
    assert all(torch.equal(a[name], b[name]) for name in a)  # whichever side is chosen
    assert not all(torch.equal(c[name], d[name]) for name in c)
