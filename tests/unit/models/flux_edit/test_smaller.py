"""Offload, 8-bit weights and LoRA files: what stays equal, what moves by how much, and what memory is planned."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from genloop.models.flux_edit import load
from genloop.models.flux_edit.config import check_edit_folder
from genloop.models.flux_edit.footprint import Room, largest_stage
from genloop.models.flux_edit.needs import COMPONENTS
from tests.unit.models.flux_edit.test_drawing import FOLDER, SIZE, conditions, difference, drawing

NO_NET = tuple(name for name in COMPONENTS if name != "controlnet")


def draw(**options: object) -> Tensor:
    made = load.load_drawer(FOLDER, NO_NET, dtype="float32", device="cpu", **options)  # type: ignore[arg-type]
    return made.draw(drawing("variation"), conditions(), (1,))


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return draw()


def test_offload_changes_no_bit(plain: Tensor) -> None:
    assert torch.equal(draw(offload=True), plain)


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.02), ("float8", 0.05)])
def test_8_bit_weights_move_latents_by_less_than_a_bound(plain: Tensor, kind: str, bound: float) -> None:
    moved = difference(draw(quantised=kind), plain) / float(plain.abs().max())
    assert 0 < moved < bound


def test_a_lora_file_is_added_with_its_alpha_and_weight(plain: Tensor, tmp_path: Path) -> None:
    model = load.load_transformer(FOLDER, dtype=torch.float32, device="cpu", text=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q"], init_lora_weights=False))
    state = get_peft_model_state_dict(model)
    settings = {"r": 2, "lora_alpha": 8, "target_modules": ["to_q"]}
    FluxPipeline.save_lora_weights(tmp_path, state, transformer_lora_adapter_metadata=settings)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    half, whole = (draw(loras=(f"{file}:{weight}",)) for weight in (0.5, 1.0))
    assert difference(half, plain) > 1e-3 and difference(whole, plain) > difference(half, plain)
    assert torch.equal(draw(loras=(f"{file}:0",)), plain)


def test_less_is_planned_for_stages_small_weights_and_offload() -> None:
    folder = check_edit_folder(FOLDER, [name for name in COMPONENTS if name != "anyline"])

    def peak(memory: str = "stages", quantised: str = "none", offload: bool = False) -> int:
        parts, working = largest_stage(folder, Room("float32", SIZE, 1, memory, quantised, offload), "cpu")
        return sum(parts.values()) + working

    assert peak("all") > peak() > peak(quantised="int8") > peak(offload=True)
