"""Smaller forms: what stays computes what it computed, what is left out is gone, quantised weights are stored so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from genloop.checkpoint import load_tensors, save_folder
from genloop.hashing import sha256_tree
from genloop.models.common.measure import size_of, weight_bytes
from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.generate import answer, load_talker
from genloop.models.qwen.load import build_chat_model, load_chat_model, save_chat_model
from genloop.models.qwen.model import language_of
from genloop.models.smaller.settings import Reduction, plan_reduction
from genloop.models.smaller.write import NOTES, write_smaller
from genloop.reading import read_json_object
from tests.worlds.tiny_instructblip import instructblip_folder
from tests.worlds.tiny_qwen import CONFIGS, qwen_folder

SEEING = ("vl", "older vl", "llava")
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 28, 3), dtype=np.uint8)
ASKED = [{"role": "user", "content": "Is it 0.25?"}]


def smaller(folder: Path, out: Path, **keys: object) -> Path:
    write_smaller(folder, plan_reduction(folder, Reduction(**keys)), out)
    return out


@pytest.fixture(scope="module", params=SEEING)
def deep(request, tmp_path_factory) -> Path:
    """A folder of a model of four layers in both stacks."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIGS[request.param].items()}
    config["text_config"]["num_hidden_layers"] = 4
    vision = config["vision_config"]
    vision["num_hidden_layers" if request.param == "llava" else "depth"] = 4
    if "fullatt_block_indexes" in vision:
        vision["fullatt_block_indexes"] = [1, 3]
    place = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    files = {
        path.name: path.read_bytes()
        for path in qwen_folder(place / "files", request.param).iterdir()
        if path.name not in ("config.json", "model.safetensors", "manifest.json")
    }
    save_chat_model(build_chat_model(config, seed=1), place / "deep", files)
    return place / "deep"


def towers(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that has the vision layers, and their name in it."""
    visual = getattr(model.model, "visual", None)
    return (visual, "blocks") if visual is not None else (model.model.vision_tower.encoder, "layers")


@pytest.mark.parametrize(("leave_out", "kept"), [("deepest", [0, 1, 3]), ("spaced", [0, 2, 3])])
def test_what_stays_computes_what_it_did_without_the_layers_that_are_gone(deep, tmp_path, leave_out, kept):
    out = smaller(deep, tmp_path / "s", text_layers=3, vision_layers=3, leave_out=leave_out)
    assert read_json_object(out / NOTES)["text_layers"] == kept
    before, now = load_talker(deep), load_talker(out)
    for place, name in ((language_of(before.model), "layers"), towers(before.model)):
        layers = getattr(place, name)
        setattr(place, name, nn.ModuleList(layers[number] for number in kept))
    for number, layer in enumerate(language_of(before.model).layers):
        layer.self_attn.layer_idx = number
    language_of(before.model).config.num_hidden_layers = len(kept)
    visual = towers(before.model)[0]
    if hasattr(visual, "fullatt_block_indexes"):
        visual.fullatt_block_indexes = [place for place, number in enumerate(kept) if number in (1, 3)]
    state, wanted = now.model.state_dict(), before.model.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in state)
    said = [answer(talker, ASKED, [IMAGE], max_new_tokens=6) for talker in (before, now)]
    assert said[0] == said[1] and len(load_tensors(out)) < len(load_tensors(deep))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantised_weights_are_stored_and_loaded_as_such(deep, tmp_path, kind):
    out = smaller(deep, tmp_path / "s", quantise=kind)
    folder = check_chat_folder(out)
    assert folder.quantised == kind and weight_bytes(out) < 0.8 * weight_bytes(deep)
    full, packed = load_chat_model(check_chat_folder(deep)), load_chat_model(folder)
    assert size_of(packed).parameters == size_of(full).parameters
    assert size_of(packed).num_bytes < 0.8 * size_of(full).num_bytes
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        exact, found = (model(input_ids=ids).logits for model in (full, packed))
        assert 0 < (found - exact).abs().max() < 0.5 * exact.abs().max()
        if kind == "nf4":
            assert torch.equal(found, load_chat_model(check_chat_folder(deep), nf4=True)(input_ids=ids).logits)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_smaller_images_are_fewer_tokens_and_places_keep_their_values(deep, tmp_path):
    out = smaller(deep, tmp_path / "s", image_size=12)
    before, now = (load_talker(folder) for folder in (deep, out))
    large = np.zeros((64, 64, 3), dtype=np.uint8)
    assert now.pictures.take(large).num_tokens < before.pictures.take(large).num_tokens
    assert isinstance(answer(now, ASKED, [large], max_new_tokens=2), str)
    name = "vision_tower.vision_model.embeddings.position_embedding.weight"
    tensors = load_tensors(deep)
    if name in tensors:
        tensors[name] = torch.arange(16.0)[None].expand(16, 16).contiguous()  # the same at every place
        save_folder(
            tmp_path / "c",
            tensors,
            {"config.json": read_json_object(deep / "config.json")},
            weights="model.safetensors",
        )
        places = load_tensors(smaller(tmp_path / "c", tmp_path / "d", image_size=12))[name]
        assert places.shape == (9, 16) and torch.allclose(places, torch.arange(16.0).expand(9, 16), atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
@pytest.mark.parametrize("language", ["vicuna", "flan_t5"])
def test_an_instructblip_keeps_fewer_query_tokens_in_fewer_bits(tmp_path, language, kind):
    folder = instructblip_folder(tmp_path / "q", language)
    out = smaller(folder, tmp_path / "s", query_tokens=3, image_size=16, quantise=kind)
    before, now = load_talker(folder), load_talker(out)
    assert (before.pictures.take(IMAGE).num_tokens, now.pictures.take(IMAGE).num_tokens) == (4, 3)
    assert torch.equal(now.model.query_tokens, before.model.query_tokens[:, :3])
    places = [talker.model.vision_model.embeddings.position_embedding.shape[1] for talker in (before, now)]
    assert places == [17, 5] and now.folder.quantised == kind
    assert isinstance(answer(now, ASKED, [IMAGE], max_new_tokens=2), str)


def test_the_same_original_gives_the_same_bytes(tmp_path):
    folder = qwen_folder(tmp_path / "q", "vl")
    first, second = (smaller(folder, tmp_path / name, image_size=16, quantise="nf4") for name in "ab")
    assert sha256_tree(first) == sha256_tree(second)
