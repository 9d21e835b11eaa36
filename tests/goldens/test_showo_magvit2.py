"""Codes and pixels equal the published MAGVIT-v2's, on every recorded tokenizer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from genloop.data.images import to_uint8
from genloop.models.magvit2.config import MagvitConfig, magvit2_manifest
from genloop.models.magvit2.load import magvit2_from_tensors
from genloop.models.magvit2.model import MagvitV2
from tests.goldens.roots import golden_name, golden_paths
from tests.goldens.showo_sets import read_arrays, read_json

TOLERANCE = 1e-4
TINY = [path for path in golden_paths("showo/**/vq_*.json") if path.with_suffix(".safetensors").is_file()]


def tokenizer_of(path: Path) -> tuple[MagvitV2, dict[str, Any]]:
    keys = read_json(path)
    config = MagvitConfig(
        num_bits=keys["z"],
        width=keys["ch"],
        encoder_mult=tuple(keys["em"]),
        encoder_blocks=tuple(keys["en"]),
        decoder_mult=tuple(keys["dm"]),
        decoder_blocks=tuple(keys["dn"]),
        resolution=keys["sizes_hw"][0][0],
    )
    return magvit2_from_tensors(config, load_file(path.with_suffix(".safetensors")), path), keys


def grids(model: MagvitV2, keys: dict[str, Any]) -> list[tuple[int, int]]:
    factor = model.config.factor
    return [(height // factor, width // factor) for height, width in keys["sizes_hw"]]


@pytest.mark.parametrize("path", TINY, ids=golden_name)
@torch.inference_mode()
def test_images_get_the_recorded_codes(path: Path) -> None:
    model, keys = tokenizer_of(path)
    recorded = read_arrays(path.with_suffix(".npz"))
    for i, grid in enumerate(grids(model, keys)):
        pixels, codes = recorded[f"pixels{i}"], recorded[f"codes{i}"]
        assert (model.encoder(pixels) - recorded[f"pre_quant{i}"]).abs().max() <= TOLERANCE
        assert torch.equal(model.encode((pixels + 1) / 2), codes)
        assert torch.equal(model.quantize.bits(codes, grid), recorded[f"quant{i}"])


@pytest.mark.parametrize("path", TINY, ids=golden_name)
def test_codes_get_the_recorded_pixels(path: Path) -> None:
    model, keys = tokenizer_of(path)
    recorded = read_arrays(path.with_suffix(".npz"))
    for i, grid in enumerate(grids(model, keys)):
        for codes, pixels in ((f"codes{i}", f"recon{i}"), (f"rand_codes{i}", f"rand_pixels{i}")):
            assert (model.decode_pixels(recorded[codes], grid) - recorded[pixels]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("path", TINY, ids=golden_name)
def test_pixels_become_the_recorded_bytes(path: Path) -> None:
    model, keys = tokenizer_of(path)
    recorded = read_arrays(path.with_suffix(".npz"))
    for i, grid in enumerate(grids(model, keys)):
        unit = ((recorded[f"rand_pixels{i}"] + 1) / 2).clamp(0, 1)
        saved = recorded[f"rand_uint8_{i}"].numpy()
        assert (to_uint8(unit) == saved).all()
        steps = np.abs(to_uint8(model.decode(recorded[f"rand_codes{i}"], grid)).astype(int) - saved)
        assert steps.max() <= 1, "a pixel within the tolerance of a step may fall on its other side, none further"
        assert (steps > 0).mean() < 1e-3


def sine_filled(config: MagvitConfig) -> MagvitV2:
    """The weights that the full-size recordings were made with: a sine over the sorted names, no random numbers."""
    shapes = {key: shape for key, shape in magvit2_manifest(config).items() if not key.startswith("quantize.")}
    tensors: dict[str, Tensor] = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        flat = np.arange(math.prod(shape))
        sine = torch.from_numpy(np.sin(0.7310 * flat * (1 + 0.001 * i) + 0.37 * i).astype(np.float32)).view(shape)
        if "norm" in name:
            tensors[name] = 1 + 0.1 * sine if name.endswith("weight") else 0.1 * sine
        else:
            tensors[name] = 0.05 * sine if len(shape) == 1 else sine * 2 / math.sqrt(math.prod(shape[1:]))
    codebook = MagvitV2(MagvitConfig(num_bits=config.num_bits, width=32)).quantize.state_dict()
    return magvit2_from_tensors(config, tensors | {f"quantize.{k}": v for k, v in codebook.items()}, "sine fill")


@pytest.mark.parametrize("path", golden_paths("showo/**/vq_full_sinfill*.npz"), ids=golden_name)
@torch.inference_mode()
def test_the_full_size_tokenizer_makes_the_recorded_codes_and_pixels(path: Path) -> None:
    """Sine weights amplify rounding: float32 runs differ from exact arithmetic by some 1e-4, the recorded one too.

    So our float64 pixels are compared, and may be off by what float32 costs our own network (plus the tolerance).
    """
    recorded, model = read_arrays(path), sine_filled(MagvitConfig())
    grid = (recorded["pixels"].shape[2] // 16, recorded["pixels"].shape[3] // 16)
    assert (model.encoder(recorded["pixels"]) - recorded["pre_quant"]).abs().max() <= TOLERANCE
    assert torch.equal(model.encode((recorded["pixels"] + 1) / 2), recorded["codes"])
    pairs = (("codes", "recon"), ("rand_codes", "rand_pixels"))
    rounded = {codes: model.decode_pixels(recorded[codes], grid) for codes, _ in pairs}
    model.double()
    for codes, pixels in pairs:
        exact = model.decoder(model.quantize.bits(recorded[codes], grid))
        cost = (rounded[codes] - exact).abs().max()
        assert cost < 2e-3
        assert (exact - recorded[pixels]).abs().max() <= TOLERANCE + 2 * cost


@pytest.mark.parametrize("path", golden_paths("showo/**/magvitv2_manifest.json"), ids=golden_name)
def test_the_public_tokenizer_has_the_recorded_tensors(path: Path) -> None:
    recorded = {key: tuple(entry[0]) for key, entry in read_json(path).items()}
    assert magvit2_manifest(MagvitConfig()) == recorded
