"""LLaVA-OneVision's config.json and tensor names, in the layouts of transformers and of the original code."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims, check_llava_folder, llava_manifest
from genloop.models.llava.config import read_llava_config as read
from tests.worlds.tiny_llava import tiny_dims, tiny_folder

ORIGINAL = {  # lmms-lab/llava-onevision-qwen2-7b-ov, keys that matter
    "architectures": ["LlavaQwenForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 3584,
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    "image_token_index": 151646,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "model_type": "llava",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
HF = {  # llava-hf/llava-onevision-qwen2-7b-ov-hf, which leaves out what is usual
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "image_token_index": 151646,
    "model_type": "llava_onevision",
    "projector_hidden_act": "gelu",
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "vocab_size": 152000,
    },
    "use_image_newline_parameter": True,
    "vision_aspect_ratio": "anyres_max_9",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
Rename = Callable[[str], str]


def config_folder(folder: Path, data: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**data, **changes}))
    return folder


def hf_4_52(name: str) -> str:
    """As transformers 4.52 and later wrote them."""
    name = re.sub(r"^language_model\.model\.", "model.language_model.", name)
    name = re.sub(r"^language_model\.lm_head\.", "lm_head.", name)
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def hf_5(name: str) -> str:
    """As transformers 5 has them in memory."""
    return hf_4_52(name).replace("vision_model.", "")


def original(name: str) -> str:
    """As the llava_qwen code wrote them."""
    name = re.sub(r"^language_model\.(model\.|(?=lm_head))", lambda match: "model." if match[1] else "", name)
    name = re.sub(r"^vision_tower\.", "model.vision_tower.vision_tower.", name)
    name = name.replace("multi_modal_projector.linear_1", "model.mm_projector.0")
    name = name.replace("multi_modal_projector.linear_2", "model.mm_projector.2")
    return "model.image_newline" if name == "image_newline" else name


def test_the_public_original_config_is_the_default(tmp_path: Path) -> None:
    config = read(config_folder(tmp_path, ORIGINAL))
    assert config == LlavaConfig()
    assert (config.num_image_positions, config.num_vision_layers, config.text.head_dim) == (730, 26, 128)


def test_the_public_transformers_config_differs_in_its_vocabulary_only(tmp_path: Path) -> None:
    assert read(config_folder(tmp_path, HF)) == LlavaConfig(text=TextDims(vocab_size=152000))


def test_the_public_model_has_eight_billion_parameters() -> None:
    manifest = llava_manifest(LlavaConfig())
    assert round(sum(map(math.prod, manifest.values())) / 1e9, 2) == 8.03


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    config = tiny_dims()
    assert read(config_folder(tmp_path, config.to_json())) == config


def test_pinpoints_may_be_a_range_of_tiles(tmp_path: Path) -> None:
    assert read(config_folder(tmp_path, ORIGINAL, image_grid_pinpoints="(1x1),...,(6x6)")) == LlavaConfig()
    config = read(config_folder(tmp_path, ORIGINAL, image_grid_pinpoints="(1x1),...,(2x2)"))
    assert config.pinpoints == ((384, 384), (384, 768), (768, 384), (768, 768))


def test_an_unknown_tower_needs_its_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mm_vision_tower is 'someone/else', .*vision_config"):
        read(config_folder(tmp_path, ORIGINAL, mm_vision_tower="someone/else"))
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 24, "patch_size": 4, "num_hidden_layers": 1}
    config = read(config_folder(tmp_path, ORIGINAL, mm_vision_tower="someone/else", vision_config=sizes))
    assert config.vision == VisionDims(16, 4304, 1, 2, 24, 4)


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "qwen2_vl"},
        {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
        {"_class_name": "Showo"},
    ],
)
def test_a_folder_of_another_family_is_refused_in_one_line(other: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'llava_onevision'") as caught:
        check_llava_folder(config_folder(tmp_path, other))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (ORIGINAL, {"hidden_size": "3584"}, "hidden_size is '3584'"),
        (ORIGINAL, {"rms_norm_eps": None}, "rms_norm_eps is None"),
        (ORIGINAL, {"rope_theta": [1]}, r"rope_theta is \[1\]"),
        (ORIGINAL, {"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        (ORIGINAL, {"hidden_act": "swish7"}, "hidden_act is 'swish7', .*gelu"),
        (ORIGINAL, {"image_aspect_ratio": None}, "image_aspect_ratio is None"),
        (ORIGINAL, {"vision_config": [1]}, r"vision_config is \[1\]"),
        (HF, {"text_config": "qwen2"}, "text_config is 'qwen2'"),
        (HF, {"image_token_index": "<image>"}, "image_token_index is '<image>'"),
        (ORIGINAL, {"num_attention_heads": 27}, "3584 .*27 attention heads"),
        (ORIGINAL, {"mm_projector_type": "linear"}, "mm_projector_type is 'linear', .*'mlp2x_gelu'"),
        (ORIGINAL, {"rope_scaling": {"type": "yarn"}}, "rope_type is 'yarn', .*'default'"),
        (ORIGINAL, {"use_sliding_window": True}, "use_sliding_window is true"),
        (ORIGINAL, {"image_grid_pinpoints": "6x6"}, "image_grid_pinpoints is '6x6'"),
        (HF, {"image_grid_pinpoints": [384]}, r"image_grid_pinpoints is \[384\]"),
        (HF, {"text_config": {"model_type": "llama"}}, r"text_config\.model_type is 'llama', .*'qwen2'"),
        (HF, {"vision_config": {"model_type": "clip"}}, r"vision_config\.model_type is 'clip'"),
        (HF, {"vision_feature_select_strategy": "default"}, "select_strategy is 'default', .*'full'"),
        (HF, {"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
        (HF, {"vision_feature_layer": -30}, "vision_feature_layer is -30, .*26"),
        (HF, {"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
    ],
)
def test_a_config_that_is_not_known_is_refused(
    data: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(config_folder(tmp_path, data, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rename", [str, hf_4_52, hf_5, original], ids=["hub", "4.52", "5", "original"])
def test_every_public_naming_is_understood(rename: Rename, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "judge")
    tensors = load_file(folder / "model.safetensors")
    assert "language_model.model.embed_tokens.weight" in tensors, "saved as on the hub"
    extra = {"vision_tower.vision_model.embeddings.position_ids": tensors["image_newline"].clone()}
    extra |= {"vision_tower.vision_model.head.probe": tensors["image_newline"].clone()}
    save_file({rename(name): value for name, value in (tensors | extra).items()}, folder / "model.safetensors")
    assert check_llava_folder(folder) == tiny_dims()


def test_tensors_in_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "judge")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.image_newline": tensors["image_newline"].clone()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"several .*model\.image_newline"):
        check_llava_folder(folder)


def test_tensors_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "judge")
    tensors = load_file(folder / "model.safetensors")
    tensors["image_newline"] = tensors["image_newline"][:7].clone()
    del tensors["language_model.lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 missing \(lm_head.*1 misshapen \(model\.image_newline is \[7\]") as caught:
        check_llava_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_torn_file_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tiny_folder(tmp_path / "judge") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated"):
        check_llava_folder(path.parent)
