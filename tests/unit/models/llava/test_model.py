"""LLaVA-OneVision in memory equals the stock model, on loading, saving, features, logits and gradients."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from genloop.models.llava.config import LlavaConfig, llava_manifest
from genloop.models.llava.load import build_llava, load_llava, save_llava
from genloop.models.llava.model import (
    Llava,
    WholeVectors,
    embed_tokens,
    image_features,
    llava_config,
)
from tests.worlds.tiny_llava import first_token_logits, tiny_dims, tiny_llava

TOLERANCE = 1e-5


def stock(folder: Path) -> Any:
    """What transformers itself makes of a folder; everything in it was found and used."""
    from transformers import LlavaOnevisionForConditionalGeneration

    model, info = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def same(one: Llava, other: Llava) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def pixels(count: int, size: int = 26) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.mark.parametrize("tied", [False, True])
def test_the_manifest_is_the_state_dict(tied: bool) -> None:
    config = replace(tiny_dims(), tie_word_embeddings=tied)
    model = build_llava(config, seed=0)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    tied_head = {"lm_head.weight": shapes["lm_head.weight"]} if tied else {}
    assert shapes == llava_manifest(config) | tied_head
    assert llava_config(model) == config


def test_fresh_weights_are_keyed_by_their_seed_alone() -> None:
    before = torch.get_rng_state()
    one, again, other = (build_llava(tiny_dims(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one, again)
    assert not same(one, other)
    assert one.training and all(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("tied", [False, True])
def test_a_saved_model_loads_here_and_in_transformers(tied: bool, tmp_path: Path) -> None:
    model = tiny_llava(replace(tiny_dims(), tie_word_embeddings=tied))
    save_llava(model, tmp_path / "judge", {"extra.json": {"a": 1}})
    assert same(load_llava(tmp_path / "judge"), model)
    assert same(stock(tmp_path / "judge"), model)
    assert json.loads((tmp_path / "judge" / "extra.json").read_text()) == {"a": 1}
    loaded = load_llava(tmp_path / "judge")
    assert not loaded.training
    shares = loaded.lm_head.weight.data_ptr() == embed_tokens_weight(loaded).data_ptr()
    assert shares == tied


def embed_tokens_weight(model: Llava) -> Tensor:
    return model.model.language_model.embed_tokens.weight


def test_a_sharded_bin_checkpoint_in_the_original_layout_loads(tmp_path: Path) -> None:
    model = tiny_llava()
    save_llava(model, tmp_path / "hf")
    config = tiny_dims()
    flat = {**config.to_json()["text_config"], "model_type": "llava_qwen", "mm_projector_type": "mlp2x_gelu"}
    flat |= {"vision_config": config.to_json()["vision_config"], "image_token_index": config.image_token_index}
    folder = tmp_path / "original"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(flat))
    tensors = {}
    for name, value in load_file(tmp_path / "hf" / "model.safetensors").items():
        name = re.sub(r"^language_model\.(model\.)?(?=lm_head)?", r"\1", name)
        name = re.sub(r"^vision_tower\.", "model.vision_tower.vision_tower.", name)
        name = re.sub(r"^multi_modal_projector\.linear_(\d)", lambda m: f"model.mm_projector.{2 * int(m[1]) - 2}", name)
        tensors["model.image_newline" if name == "image_newline" else name] = value
    names = sorted(tensors)
    shards = {f"pytorch_model-{part}.bin": names[part::2] for part in range(2)}
    for file, keys in shards.items():
        torch.save({key: tensors[key] for key in keys}, folder / file)
    owner = {key: file for file, keys in shards.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": owner}))
    assert same(load_llava(folder), model)


@torch.inference_mode()
def test_features_of_one_tile_are_those_of_the_stock_model(tmp_path: Path) -> None:
    save_llava(tiny_llava(), tmp_path / "judge")
    ours, theirs = load_llava(tmp_path / "judge"), stock(tmp_path / "judge")
    shown = pixels(3)
    sizes = torch.tensor([[26, 26]] * 3)
    recorded = theirs.model.get_image_features(shown[:, None], sizes, batch_num_images=[3]).pooler_output
    features = image_features(ours, shown)
    assert features.shape == (3, 37, 32)
    assert (features - torch.stack(recorded)).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_the_features_of_an_earlier_layer_can_be_chosen(tmp_path: Path) -> None:
    save_llava(tiny_llava(replace(tiny_dims(), vision_feature_layer=-2)), tmp_path / "judge")
    ours, theirs = load_llava(tmp_path / "judge"), stock(tmp_path / "judge")
    recorded = theirs.model.get_image_features(
        pixels(2)[:, None], torch.tensor([[26, 26]] * 2), batch_num_images=[2]
    ).pooler_output
    assert llava_config(ours).num_vision_layers == 1
    assert (image_features(ours, pixels(2)) - torch.stack(recorded)).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_first_token_logits_are_those_of_the_stock_model(tmp_path: Path) -> None:
    save_llava(tiny_llava(), tmp_path / "judge")
    ours, theirs = load_llava(tmp_path / "judge"), stock(tmp_path / "judge")
    token = tiny_dims().image_token_index
    before, after = [5, 9, 11], [[20, 30, 40, 50, 60], [21, 31]]
    features = image_features(ours, pixels(2))
    rows = [
        torch.cat([embed_tokens(ours, torch.tensor(before)), seen, embed_tokens(ours, torch.tensor(ids))])
        for seen, ids in zip(features, after)
    ]
    lengths = torch.tensor([len(row) for row in rows])
    logits = first_token_logits(ours, torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)
    for row, ids in enumerate(after):
        recorded = theirs(
            input_ids=torch.tensor([before + [token] * 37 + ids]),
            pixel_values=pixels(2)[row : row + 1, None],
            image_sizes=torch.tensor([[26, 26]]),
            batch_num_images=[2],  # not 1: no tiles but this one
        ).logits[0, -1]
        assert (logits[row] - recorded).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_the_stock_generation_goes_on_as_before(tmp_path: Path) -> None:
    save_llava(tiny_llava(), tmp_path / "judge")
    ours, theirs = load_llava(tmp_path / "judge"), stock(tmp_path / "judge")
    row = embed_tokens(ours, torch.tensor([[5, 9, 11, 20, 30]]))
    seen = torch.ones(1, 5, dtype=torch.int64)
    options = {"inputs_embeds": row, "attention_mask": seen, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(ours.generate(**options), theirs.generate(**options))


def test_both_steps_are_differentiable_with_and_without_checkpointing() -> None:
    def gradients(model: Llava) -> dict[str, Tensor]:
        model.train()
        seen = image_features(model, pixels(2))
        text = embed_tokens(model, torch.tensor([[5, 6, 7, 8]] * 2))
        logits = first_token_logits(model, torch.cat([seen, text], dim=1), torch.tensor([41, 40]))
        logits.log_softmax(-1)[:, 9].sum().backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    plain = gradients(tiny_llava())
    model = tiny_llava()
    model.gradient_checkpointing_enable()
    saved = gradients(model)
    unused = {name for name, _ in model.named_parameters()} - plain.keys()
    assert {name.partition("post_layernorm")[1] for name in unused} == {"post_layernorm"}
    assert plain.keys() == saved.keys()
    assert all(torch.allclose(plain[name], saved[name], atol=1e-6) for name in plain)
    assert all(gradient.abs().max() > 0 for name, gradient in plain.items() if "k_proj.bias" not in name)


def test_weights_take_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    save_llava(tiny_llava(), tmp_path / "judge")
    model = load_llava(tmp_path / "judge", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert image_features(model, pixels(1)).dtype == torch.bfloat16


def test_a_tower_of_any_size_can_be_built() -> None:
    vision = replace(tiny_dims().vision, image_size=24, patch_size=4, hidden_size=96, num_attention_heads=4)
    model = build_llava(replace(tiny_dims(), vision=vision), seed=0)
    assert image_features(model, pixels(2, size=24)).shape == (2, 37, 32)
    assert LlavaConfig().num_image_positions == 730


def test_an_elementwise_function_does_not_see_where_an_element_stands() -> None:
    function = WholeVectors(torch.nn.GELU(approximate="tanh"))
    row = torch.randn(41, generator=torch.Generator().manual_seed(1))
    alone = function(row[None])[0]
    for count in range(1, 9):
        assert torch.equal(function(row.expand(count, -1).contiguous())[-1], alone)
    assert torch.allclose(alone, torch.nn.functional.gelu(row, approximate="tanh"), atol=1e-6)
