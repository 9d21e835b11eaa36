"""Names and sizes of layers as public files have them; reductions that are none."""

import json

import pytest

from genloop.models.smaller.families import FAMILIES, layer_of, num_layers
from genloop.models.smaller.settings import Reduction, plan_reduction
from tests.worlds.tiny_qwen import qwen_folder

TEXT = {
    "qwen2_5_vl": ("model.layers.7.mlp.up_proj.weight", "model.language_model.layers.7.mlp.up_proj.weight"),
    "llava_onevision": (
        "language_model.model.layers.7.mlp.up_proj.weight",
        "model.language_model.layers.7.mlp.up_proj.weight",
    ),
    "instructblip": (
        "language_model.model.layers.7.mlp.up_proj.weight",
        "language_model.decoder.block.7.layer.1.EncDecAttention.k.weight",
        "language_model.encoder.block.7.layer.0.SelfAttention.k.weight",
    ),
}
VISION = {
    "qwen2_5_vl": ("visual.blocks.7.attn.qkv.weight", "model.visual.blocks.7.attn.qkv.weight"),
    "llava_onevision": (
        "vision_tower.vision_model.encoder.layers.7.mlp.fc1.weight",
        "model.vision_tower.encoder.layers.7.mlp.fc1.weight",
    ),
    "instructblip": ("vision_model.encoder.layers.7.self_attn.qkv.weight",),
}
NEITHER = (
    "lm_head.weight",
    "visual.merger.mlp.0.weight",
    "qformer.encoder.layer.7.attention.attention.query.weight",
    "language_model.model.embed_tokens.weight",
    "multi_modal_projector.linear_1.weight",
)


@pytest.mark.parametrize("kind", TEXT)
def test_layers_are_found_under_older_and_newer_names(kind):
    family = FAMILIES[kind]
    for stack, other, names in ((family.text, family.vision, TEXT), (family.vision, family.text, VISION)):
        for name in names[kind]:
            before, number, behind = layer_of(name, stack)
            assert number == 7 and f"{before}7{behind}" == name and layer_of(name, other) is None
    assert all(layer_of(name, stack) is None for name in NEITHER for stack in (family.text, family.vision))


def test_sizes_stand_on_top_in_older_files_and_both_halves_of_a_model_count():
    flat = {"num_hidden_layers": 28, "vision_config": {"depth": 32}}
    family = FAMILIES["qwen2_5_vl"]
    assert (num_layers(flat, family.text), num_layers(flat, family.vision)) == (28, 32)
    halves = {"text_config": {"num_layers": 24, "num_decoder_layers": 24}}
    assert num_layers(halves, FAMILIES["instructblip"].text) == 24
    halves["text_config"]["num_decoder_layers"] = 12
    with pytest.raises(ValueError, match="num_decoder_layers"):
        num_layers(halves, FAMILIES["instructblip"].text)


@pytest.mark.parametrize(
    ("name", "keys", "found"),
    [
        ("vl", {}, "quantise"),
        ("vl", {"leave_out": "spaced"}, "quantise"),
        ("vl", {"text_layers": 2}, "text_layers"),
        ("vl", {"vision_layers": 2}, "vision_layers"),
        ("vl", {"query_tokens": 4}, "query_tokens"),
        ("vl", {"image_size": 32}, "image_size"),
        ("vl", {"image_size": 7}, "image_size"),
        ("llava", {"image_size": 16}, "image_size"),
        ("llava", {"image_size": 3}, "image_size"),
        ("text", {"quantise": "nf4"}, "model_type"),
    ],
)
def test_what_cannot_be_left_out_is_refused(tmp_path, name, keys, found):
    folder = qwen_folder(tmp_path / "q", name)
    with pytest.raises(ValueError, match=found):
        plan_reduction(folder, Reduction(**keys))


def test_a_quantised_model_is_not_made_smaller_again(tmp_path):
    folder = qwen_folder(tmp_path / "q", "vl")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="quantization_config"):
        plan_reduction(folder, Reduction(quantise="nf4"))
