"""Offload, 8-bit weights and LoRA files: what stays equal, what moves by how much, and what memory is planned."""

import shutil
from pathlib import Path

import gguf
import pytest
import torch
from diffusers import FluxPipeline
from gguf import GGMLQuantizationType
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
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


def test_a_transformer_in_one_file_is_that_of_a_folder(plain: Tensor, tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    shutil.copy(FOLDER / "flux" / "transformer" / "diffusion_pytorch_model.safetensors", file)
    assert torch.equal(draw(transformer=file), plain)


def write_gguf(file: Path, kind: str) -> Path:
    """The twin's transformer by diffusers' names; vectors, and rows that no block of 32 fills, stay as they are."""
    source, target = FOLDER / "flux" / "transformer" / "diffusion_pytorch_model.safetensors", GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(str(file), "flux")
    for key, value in load_file(source).items():
        values = value.float().numpy()
        if kind != "F32" and values.ndim == 2 and values.shape[1] % 32 == 0:
            writer.add_tensor(key, gguf.quants.quantize(values, target), raw_dtype=target)
        else:
            writer.add_tensor(key, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_of_float32_is_that_of_a_folder(plain: Tensor, tmp_path: Path) -> None:
    assert torch.equal(draw(transformer=write_gguf(tmp_path / "flux.gguf", "F32")), plain)


@pytest.mark.parametrize(("kind", "bound"), [("Q8_0", 0.01), ("Q4_0", 0.1)])
def test_a_smaller_gguf_file_moves_latents_by_less_than_a_bound_offloaded_or_not(
    plain: Tensor, tmp_path: Path, kind: str, bound: float
) -> None:
    file = write_gguf(tmp_path / "flux.gguf", kind)
    found = draw(transformer=file)
    assert 0 < difference(found, plain) / float(plain.abs().max()) < bound
    assert torch.equal(draw(transformer=file, offload=True), found)


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


def test_less_is_planned_for_stages_small_weights_and_offload(tmp_path: Path) -> None:
    folder = check_edit_folder(FOLDER, [name for name in COMPONENTS if name != "anyline"])

    def peak(memory: str = "stages", quantised: str = "none", offload: bool = False) -> int:
        parts, working = largest_stage(folder, Room("float32", SIZE, 1, memory, quantised, offload), "cpu")
        return sum(parts.values()) + working

    assert peak("all") > peak() > peak(quantised="int8") > peak(offload=True)
    small = tmp_path / "flux.gguf"
    small.write_bytes(b"GGUF" + bytes(1000))
    parts, _ = largest_stage(folder, Room("float32", SIZE, 1, "stages", "none", False, small), "cpu")
    assert parts.get("transformer", 1004) == 1004
