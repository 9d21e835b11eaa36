"""The job that trains chat models, with InstructBLIP: adapters in each of its parts, all weights, what is refused."""

import os
from pathlib import Path

import pytest
import torch

from genloop.checkpoint import read_shapes
from genloop.job import run_command
from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.load import load_chat_model
from genloop.registry import require
from genloop.training.state import checkpoints
from jobs import train_vlm
from tests.runs import ROOT, refusal
from tests.worlds.tiny_instructblip import LANGUAGES, instructblip_folder, write_rounds

LAYERS = {"language": {"q_proj", "v_proj", "q", "v"}, "qformer": {"query", "value"}, "vision": {"qkv"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    os.chdir(ROOT)
    place = tmp_path_factory.mktemp("instructblip")
    for language in LANGUAGES:
        instructblip_folder(place / language, language, words=("what", "is", "wrong"))
    write_rounds(place)
    return place


def words_of(place: Path, language: str, run: Path, *more: str) -> list[str]:
    steps = ("train.num_steps=2", "train.warmup_steps=0", "train.save_every=1", "train.log_every=1")
    words = (f"data.chats.chats={place / 'rounds.jsonl'}", f"start={place / language}", "chat.packing=false")
    return ["tiny", *words, *steps, *more, f"out={run}"]


@pytest.mark.parametrize(
    ("language", "part"), [("vicuna", "all"), ("flan_t5", "all"), ("vicuna", "qformer"), ("flan_t5", "language")]
)
def test_adapters_stand_beside_queries_and_values_of_the_part_as_peft_reads_them(place, tmp_path, language, part):
    lora = ("lora.rank=2", f"lora_part={part}", "lora.targets=[attention]", "merged=true", "train.lr=0.05")
    assert run_command(train_vlm, words_of(place, language, tmp_path / "run", *lora)) == 0
    folder = check_chat_folder(place / language)
    shapes = read_shapes(checkpoints(tmp_path / "run")[-1])
    adapters = {name.split(".lora_")[0].removeprefix("model.") for name in shapes if name.startswith("model.")}
    assert {name.rsplit(".", 1)[1] for name in adapters} <= set().union(*LAYERS.values())
    assert {_part(name) for name in adapters} == (set(LAYERS) if part == "all" else {part})
    adapted = require("peft").PeftModel.from_pretrained(load_chat_model(folder), str(tmp_path / "run/adapter")).eval()
    merged, base = load_chat_model(check_chat_folder(tmp_path / "run/merged")), load_chat_model(folder)
    found, expected, before = (_logits(model) for model in (merged, adapted, base))
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found, before, atol=1e-5)


def _part(name: str) -> str:
    first = name.split(".")[0]
    return {"vision_model": "vision", "language_model": "language"}.get(first, first)


def _logits(model) -> torch.Tensor:
    ids = torch.tensor([[model.config.image_token_index] * 4 + [5, 6, 7]])
    inputs = {"pixel_values": torch.ones(1, 3, 32, 32), "qformer_input_ids": torch.tensor([[2, 5, 3]])}
    inputs |= {"decoder_input_ids": torch.tensor([[0, 5]])} if model.config.text_config.model_type == "t5" else {}
    with torch.no_grad():
        return model(input_ids=ids, **inputs).logits


def test_all_parts_are_trained_where_none_is_frozen(place, tmp_path):
    rates = ("vision_lr=null", "projector_lr=null", "qformer_lr=null", "train.num_steps=1")
    assert run_command(train_vlm, words_of(place, "vicuna", tmp_path / "run", *rates)) == 0
    before, after = (
        dict(load_chat_model(check_chat_folder(folder)).named_parameters())
        for folder in (place / "vicuna", tmp_path / "run/model")
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for part in ("vision_model.encoder", "query_tokens", "qformer.encoder", "language_projection", "language_model"):
        assert any(name.startswith(part) for name in changed), part


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["chat.packing=true"], "chat.packing"),
        (["lora.rank=2", "lora.targets=[q_proj]"], "lora.targets"),
        (["data.chats.chats=configs/prompts/shapes_metadata.jsonl"], "data.chats.chats"),
    ],
)
def test_what_does_not_fit_the_family_is_refused(place, tmp_path, capsys, words, named):
    assert named in refusal(train_vlm, words_of(place, "flan_t5", tmp_path / "run", *words), tmp_path, capsys)


def test_a_part_that_a_family_lacks_is_refused(tmp_path, capsys):
    words = ["tiny_vl", "lora_part=qformer", f"out={tmp_path / 'run'}"]
    assert "lora_part" in refusal(train_vlm, words, tmp_path, capsys)


def test_a_chat_of_two_rounds_is_refused_by_file_and_line(place, tmp_path, capsys):
    words = words_of(place, "vicuna", tmp_path / "run", f"data.chats.chats={place / 'chats.jsonl'}")
    assert "chats.jsonl:" in refusal(train_vlm, words, tmp_path, capsys)
