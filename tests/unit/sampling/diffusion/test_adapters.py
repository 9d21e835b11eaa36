"""LoRA files on a pipeline: alpha is the file's, the weight the config's, and other bases are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from genloop.models.diffusion.config import COMPONENTS, check_diffusion_folder
from genloop.models.diffusion.load import load_diffusion
from genloop.models.diffusion.lora import LoraFile, check_lora
from genloop.registry import require
from tests.worlds.tiny_diffusion import write_pipeline

RANK, ALPHA = 4, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def lora(folder: Path) -> Path:
    """A random adapter on queries of the UNet, as diffusers saves one with its metadata."""
    diffusers, peft = require("diffusers", "diffusion"), require("peft", "diffusion")
    training = require("diffusers.training_utils")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pipe.unet.add_adapter(
            peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_k"], init_lora_weights=False)
        )
    state = require("diffusers.utils").convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
    metadata = training._collate_lora_metadata({"unet": pipe.unet})
    pipe.save_lora_weights(folder.parent / "lora", unet_lora_layers=state, **metadata)
    return folder.parent / "lora" / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_weights_become_those_of_the_sum(folder: Path, lora: Path, weight: float) -> None:
    base = check_diffusion_folder(folder)
    check_lora(lora, base, COMPONENTS[base.pipeline])
    plain, adapted = (
        load_diffusion(base, loras, grid=(16, 16)).pipeline.unet.state_dict()
        for loras in ([], [LoraFile(lora, weight)])
    )
    assert plain.keys() == adapted.keys()
    tensors, changed = load_file(lora), [key for key in plain if not torch.equal(plain[key], adapted[key])]
    assert changed and all(".to_k." in key for key in changed)
    for key in changed:
        name = f"unet.{key.removesuffix('.weight')}"
        down, up = (tensors[f"{name}.lora.{side}.weight"] for side in ("down", "up"))
        torch.testing.assert_close(adapted[key], plain[key] + weight * ALPHA / RANK * up @ down, rtol=0, atol=1e-5)


def test_an_adapter_of_another_base_is_refused(folder: Path, lora: Path) -> None:
    other = check_diffusion_folder(write_pipeline(folder.parent / "xl", xl=True))
    with pytest.raises(ValueError, match=r"another base|no layer"):
        check_lora(lora, other, COMPONENTS[other.pipeline])
