"""MAGVIT-v2 tokenizers: fresh, from a checkpoint folder in one of the public layouts, and written as one."""

from pathlib import Path

import torch
from torch import Tensor

from genloop.checkpoint import compare_manifest, load_tensors, save_folder
from genloop.models.magvit2.config import MagvitConfig, magvit2_manifest, read_magvit2_config
from genloop.models.magvit2.model import Codebook, MagvitV2


def build_magvit2(config: MagvitConfig, *, seed: int, device: str = "cpu") -> MagvitV2:
    """A tokenizer with fresh weights: kernels U(-a, a), a = fan_in^-1/2; biases 0, norms 1; keyed by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in magvit2_manifest(config).items():
        if len(shape) == 4:
            bound = (shape[1] * shape[2] * shape[3]) ** -0.5
            state[key] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        elif not key.startswith("quantize."):
            state[key] = torch.ones(shape) if "norm" in key and key.endswith("weight") else torch.zeros(shape)
    model = _empty_magvit2(config)
    model.load_state_dict(state, strict=False, assign=True)
    return model.to(device)


def load_magvit2(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> MagvitV2:
    """A checkpoint folder in one of the public layouts -> the tokenizer, in eval mode, without gradients."""
    return magvit2_from_tensors(
        read_magvit2_config(folder), load_tensors(folder, device=device), folder, dtype=dtype, device=device
    )


def magvit2_from_tensors(
    config: MagvitConfig,
    tensors: dict[str, Tensor],
    where: object,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> MagvitV2:
    """Tensors by their public names -> the tokenizer; ValueError that lists those that do not fit."""
    compare_manifest(magvit2_manifest(config), {key: tuple(value.shape) for key, value in tensors.items()}, where)
    model = _empty_magvit2(config)
    weights = {key: value.to(device=device, dtype=dtype) for key, value in tensors.items() if "quantize." not in key}
    model.load_state_dict(weights, strict=False, assign=True)
    return model.to(device).requires_grad_(False).eval()


def save_magvit2(model: MagvitV2, folder: Path) -> None:
    """Write the public layout: config.json, pytorch_model.safetensors, manifest.json."""
    save_folder(folder, model.state_dict(), {"config.json": model.config.to_json()})


def _empty_magvit2(config: MagvitConfig) -> MagvitV2:
    """The modules without memory behind their weights; the codebook, which is computed, is there."""
    with torch.device("meta"):
        model = MagvitV2(config)
    model.quantize = Codebook(config.num_bits)
    return model
