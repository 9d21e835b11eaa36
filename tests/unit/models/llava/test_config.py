"""LLaVA-OneVision's config.json and tensor names, in the layouts of transformers and of the original code."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from genloop.models.llava.config import LlavaConfig, TextDims, VisionDims, check_llava_folder, llava_manifest
from genloop.models.llava.config import read_llava_config as read
from tests.worlds.llava_configs import HF, ORIGINAL, config_folder
from tests.worlds.tiny_llava import tiny_dims, tiny_folder

Rename = Callable[[str], str]


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


def test_quantised_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = config_folder(tmp_path, HF | {"quantization_config": {"quant_method": "bitsandbytes"}})
    with pytest.raises(ValueError, match=r"config\.json: quantization_config") as caught:
        check_llava_folder(folder)
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
