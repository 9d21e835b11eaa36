"""Which LoRA files fit a base, in all spellings of their keys; alpha stays what the file says."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genloop.models.diffusion.config import COMPONENTS, check_diffusion_folder
from genloop.models.diffusion.lora import LoraFile, check_lora, parse_lora
from tests.worlds.diffusion_folder import write_folder

TEXT = "encoder.q_proj"  # of the text encoder, whose layers lie below text_model
SPELLINGS = {
    "peft": ("unet.block.to_q.lora_A.weight", "unet.block.to_q.lora_B.weight"),
    "diffusers": ("unet.block.to_q.lora.down.weight", "unet.block.to_q.lora.up.weight"),
    "kohya": ("lora_unet_block_to_q.lora_down.weight", "lora_unet_block_to_q.lora_up.weight"),
    "text": (f"text_encoder.text_model.{TEXT}.lora_A.weight", f"text_encoder.text_model.{TEXT}.lora_B.weight"),
    "old text": (
        f"text_encoder.{TEXT}.lora_linear_layer.down.weight",
        f"text_encoder.{TEXT}.lora_linear_layer.up.weight",
    ),
    "kohya text": (
        "lora_te_text_model_encoder_q_proj.lora_down.weight",
        "lora_te_text_model_encoder_q_proj.lora_up.weight",
    ),
}


def check(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    save_file({key: torch.ones(shape) for key, shape in shapes.items()}, tmp_path / "lora.safetensors")
    base = check_diffusion_folder(write_folder(tmp_path / "sd"))
    check_lora(tmp_path / "lora.safetensors", base, COMPONENTS[base.pipeline])


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("narrow", ["", "down", "up"])
def test_both_factors_have_to_fit_their_layer(tmp_path: Path, name: str, narrow: str) -> None:
    down, up = SPELLINGS[name]
    shapes: dict[str, tuple[int, ...]] = {down: (4, 6 if narrow == "down" else 8), up: (6 if narrow == "up" else 8, 4)}
    if "kohya" in name:
        shapes[down.replace("lora_down.weight", "alpha")] = ()
    if not narrow:
        assert check(tmp_path, shapes) is None
        return
    with pytest.raises(ValueError, match="another base"):
        check(tmp_path, shapes)


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [("a.safetensors", "a.safetensors", 1.0), ("b.safetensors:-0.5", "b.safetensors", -0.5), ("/x/c:2", "/x/c", 2.0)],
)
def test_a_weight_stands_behind_the_last_colon(text: str, file: str, weight: float) -> None:
    assert parse_lora(text) == LoraFile(Path(file), weight)


@pytest.mark.parametrize("text", ["a:", ":1", "a:nan", "a:inf", "a:1e9"])
def test_what_is_no_weight_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="weight"):
        parse_lora(text)
