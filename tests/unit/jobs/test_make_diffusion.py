"""Fresh diffusion models: keyed weights, the world's words as tokens, folders that `generate` draws with."""

from pathlib import Path

import pytest
import torch

from genloop.checkpoint import load_tensors
from genloop.hashing import sha256_tree
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.diffusion.config import COMPONENTS, check_diffusion_folder
from genloop.registry import require
from genloop.shapes.text import vocabulary
from jobs import generate, make_diffusion
from tests.runs import ROOT


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def made(out: Path, *words: str) -> Path:
    assert run_command(make_diffusion, ["tiny", *words, f"out={out}"]) == 0
    return out / "pipeline"


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_what_is_made_draws(tmp_path, kind):
    folder = made(tmp_path / "made", f"kind={kind}")
    assert check_diffusion_folder(folder).grid(None, None) == (16, 16)
    words = ["tiny_diffusion", f"generator.options.pipeline={folder}", "limit=1", "sampling.steps=2"]
    assert run_command(generate, [*words, f"out={tmp_path / 'drawn'}"]) == 0
    assert len(list(read_rows(tmp_path / "drawn"))) == 2


def test_every_word_of_the_world_is_one_token(tmp_path):
    folder = made(tmp_path)
    tokenizer = require("transformers").CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert [tokenizer.tokenize(word) for word in vocabulary()[1:]] == [[f"{word}</w>"] for word in vocabulary()[1:]]
    ids = tokenizer("a photo of two circles", padding="max_length").input_ids
    assert len(ids) == 16 and ids[0] == tokenizer.bos_token_id and ids[6:8] == [2, tokenizer.pad_token_id]


def test_weights_follow_from_the_seed_alone_and_the_vae_is_the_given_one(tmp_path):
    before = torch.random.get_rng_state()
    first, same, other = (made(tmp_path / name, f"seed={s}") for name, s in (("a", 0), ("b", 0), ("c", 1)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sha256_tree(first) == sha256_tree(same) != sha256_tree(other)
    weights = [load_tensors(folder / "unet") for folder in (first, other)]
    assert not weights[0]["conv_in.weight"].equal(weights[1]["conv_in.weight"])
    vae, given = (load_tensors(place / "vae") for place in (first, ROOT / "ckpts/tiny/sd"))
    assert vae.keys() == given.keys() and all(vae[name].equal(given[name]) for name in vae)
    assert all((first / component).is_dir() for component in COMPONENTS["StableDiffusionPipeline"])
