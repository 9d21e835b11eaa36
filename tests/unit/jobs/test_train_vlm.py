"""The job that trains chat models, end to end at tiny size: chats -> model or adapters, resumed, merged, refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from genloop.checkpoint import read_shapes, verify_folder
from genloop.job import parse, run_command
from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.generate import answer, load_talker
from genloop.models.qwen.load import load_chat_model
from genloop.registry import require
from genloop.training.state import checkpoints
from jobs import train_vlm
from tests.runs import ROOT, refusal
from tests.worlds.tiny_qwen import qwen_folder, write_chats

DATA, MODELS = Path("configs/data/qwen"), Path("ckpts/tiny/qwen")
FOLDERS = {"tiny": "model", "tiny_vl": "merged", "tiny_qlora": "merged"}  # what comes out
PRESETS = tuple(FOLDERS)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run of every tiny preset."""
    os.chdir(ROOT)
    place = tmp_path_factory.mktemp("runs")
    for preset in PRESETS:
        assert run_command(train_vlm, [preset, f"out={place / preset}"]) == 0
    return {preset: place / preset for preset in PRESETS}


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def result(run: Path) -> dict[str, bytes]:
    """Every file of what a training leaves."""
    folders = [run / name for name in ("model", "adapter", "merged") if (run / name).is_dir()]
    return {str(p.relative_to(run)): p.read_bytes() for folder in folders for p in sorted(folder.iterdir())}


def test_the_committed_models_and_chats_are_what_their_builder_makes(tmp_path):
    for name in ("text", "vl"):
        folder = qwen_folder(tmp_path / name, name)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
            p.name: p.read_bytes() for p in (MODELS / name).iterdir()
        }
    assert write_chats(tmp_path / "chats").read_bytes() == (DATA / "chats.jsonl").read_bytes()


@pytest.mark.parametrize(("preset", "folder"), FOLDERS.items())
def test_what_comes_out_answers(runs, preset, folder):
    verify_folder(runs[preset] / folder)
    talker = load_talker(runs[preset] / folder)
    assert isinstance(answer(talker, [{"role": "user", "content": "Is it?"}], max_new_tokens=3), str)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_loss_falls_and_what_is_learned_is_written_down_before(runs, preset):
    found = rows(runs[preset])
    assert [row["step"] for row in found] == [5, 10] and found[1]["loss"] < found[0]["loss"]
    report = json.loads((runs[preset] / "supervision.json").read_text())
    assert 0 < report["loss_share"] < 1 and report["image_tokens_missing"] == 0
    assert all(span.endswith("<|im_end|>") for one in report["spans"] for span in one["spans"])
    assert report["images"] == (10 if preset == "tiny_vl" else 0)
    summary = json.loads((runs[preset] / "summary.json").read_text())
    assert summary["chats"] == 2 and summary["loss"][1] <= summary["loss"][0] <= summary["loss"][2]


@pytest.mark.parametrize("preset", ["tiny_vl", "tiny_qlora"])
def test_adapters_are_those_of_peft_and_merged_is_their_sum(runs, preset):
    folder = check_chat_folder(MODELS / ("vl" if preset == "tiny_vl" else "text"))
    adapted = require("peft").PeftModel.from_pretrained(load_chat_model(folder), str(runs[preset] / "adapter")).eval()
    merged = load_chat_model(check_chat_folder(runs[preset] / "merged"))
    ids = torch.arange(8, 40)[None]
    with torch.no_grad():
        found, base = merged(ids).logits, load_chat_model(folder)(ids).logits
        assert torch.allclose(adapted(ids).logits, found, atol=1e-5)
    assert not torch.allclose(found, base, atol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_checkpoint_holds_what_is_trained_and_a_resumed_run_ends_with_the_same_bytes(runs, tmp_path, preset):
    names = set(read_shapes(checkpoints(runs[preset])[-1]))
    assert all("lora_" in name for name in names) == (preset != "tiny")
    assert not any("quant" in name or "absmax" in name for name in names)
    shutil.copytree(runs[preset], tmp_path / "run")
    shutil.rmtree(checkpoints(tmp_path / "run")[-1])
    for name in ("done.json", "summary.json"):
        (tmp_path / "run" / name).unlink()
    assert run_command(train_vlm, [preset, f"out={tmp_path / 'run'}"]) == 0
    assert result(tmp_path / "run") == result(runs[preset])
    assert (tmp_path / "run/summary.json").read_bytes() == (runs[preset] / "summary.json").read_bytes()


@pytest.mark.parametrize("words", [["chat.packing=false"], ["train.gradient_checkpointing=true"]])
def test_saved_memory_changes_no_loss_and_unpacked_rows_learn_too(runs, tmp_path, words):
    assert run_command(train_vlm, ["tiny_vl", *words, f"out={tmp_path / 'run'}"]) == 0
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    if words[0].startswith("train."):
        assert losses == pytest.approx([row["loss"] for row in rows(runs["tiny_vl"])], rel=1e-5)
    else:
        assert losses[1] < losses[0]


def test_a_model_whose_parts_have_two_types_is_measured_at_the_end(tmp_path):
    """Adapters and projector are float32, the tower in front of them bfloat16."""
    start = qwen_folder(tmp_path / "llava", "llava")
    words = ["tiny_vl", f"start={start}", "saved_dtype=bfloat16", "train.precision=bf16", "projector_lr=null"]
    assert run_command(train_vlm, [*words, "train.num_steps=1", f"out={tmp_path / 'run'}"]) == 0
    assert json.loads((tmp_path / "run/summary.json").read_text())["loss"][0] > 0
    assert json.loads((tmp_path / "run/merged/config.json").read_text())["dtype"] == "bfloat16"


def test_a_new_model_gets_a_tokenizer_of_its_chats(tmp_path):
    words = ["tiny", "start=null", "model.vocab_size=300", "model.hidden_size=16", "model.num_hidden_layers=1"]
    words += ["train.num_steps=2", "chat.system=Be brief.", f"out={tmp_path / 'run'}"]
    assert run_command(train_vlm, words) == 0
    talker = load_talker(tmp_path / "run/model", system="Be brief.")
    assert len(talker.chat.tokenizer.encode("brightness")) < len("brightness")
    assert talker.model.config.vocab_size == 300


def test_training_goes_on_from_adapters(runs, tmp_path):
    words = ["tiny_vl", f"adapter={runs['tiny_vl'] / 'adapter'}", "train.num_steps=1", "train.lr=1e-9", "merged=false"]
    assert run_command(train_vlm, [*words, f"out={tmp_path / 'run'}"]) == 0
    before, after = (_adapter(run) for run in (runs["tiny_vl"], tmp_path / "run"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def _adapter(run: Path) -> dict[str, torch.Tensor]:
    return require("safetensors.torch").load_file(run / "adapter/adapter_model.safetensors")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["lora.rank=4", "lora.targets=[q_projj]"], "lora.targets"),
        (["merged=true"], "lora.rank"),
        (["quantise=nf4"], "quantise"),
        (["quantise=nf4", "lora.rank=2", "vision_lr=null"], "quantise"),
        (["quantise=nf4", "lora.rank=2", "train.zero_stage=3"], "train.zero_stage"),
        (["lora.rank=2", "projector_lr=null"], "merged"),
        (["start=null", "lora.rank=2"], "lora.rank"),
        (["start=null", "model.hidden_size=30"], "model.hidden_size"),
        (["chat.max_length=64"], "chat.max_length"),
        (["data.chats.val_share=0", "eval_every=1"], "eval_every"),
        (["data.chats.chats=missing.jsonl"], "data.chats.chats"),
        (["data.chats.shards=nowhere"], "data.chats"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(tmp_path, capsys, words, found):
    assert found in refusal(train_vlm, ["tiny", *words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


def test_an_adapter_of_another_base_is_refused(runs, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    shutil.copytree(runs["tiny_qlora"] / "adapter", adapter)
    words = ["tiny_vl", f"adapter={adapter}", f"out={tmp_path / 'run'}"]
    assert "adapter of another base" in refusal(train_vlm, words, tmp_path, capsys)
    (adapter / "base.json").unlink()
    assert "adapter_model.safetensors: adapter of another base" in refusal(train_vlm, words, tmp_path, capsys)
    assert "lora_alpha" in refusal(train_vlm, ["tiny_qlora", *words[1:], "lora.alpha=9"], tmp_path, capsys)


def test_a_tokenizer_without_chat_template_is_refused(tmp_path, capsys):
    folder = shutil.copytree(MODELS / "text", tmp_path / "q")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    error = refusal(train_vlm, ["tiny", f"start={folder}", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert f"{folder}/tokenizer_config.json: chat_template" in error


def test_a_plan_counts_four_bits_and_images(runs, tmp_path):
    weights = {}
    for preset in PRESETS:
        config = parse(train_vlm, [preset, f"out={tmp_path / preset}"])
        planned = train_vlm.footprint(config, train_vlm.check(config), device="cpu", ranks=1)
        weights[preset] = planned.parts["weights"]
        assert planned.working > 0
    on_disk = {
        preset: (runs[preset] / folder / "model.safetensors").stat().st_size for preset, folder in FOLDERS.items()
    }
    assert weights["tiny"] == pytest.approx(on_disk["tiny"], rel=0.1)
    assert weights["tiny_vl"] == pytest.approx(on_disk["tiny_vl"], rel=0.2)  # and the adapters
    assert weights["tiny_qlora"] < 0.7 * on_disk["tiny_qlora"]
