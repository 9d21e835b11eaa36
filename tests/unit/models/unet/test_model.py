"""A UNet of depthwise blocks: fresh blocks do nothing, folders are read by diffusers alone, sizes are free."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from genloop.models.diffusion.config import check_diffusion_folder
from genloop.models.diffusion.fresh import save_pipeline
from genloop.models.diffusion.load import load_diffusion
from genloop.models.diffusion.pruning import kept_layers
from genloop.models.unet.build import empty_unet, fresh_unet
from genloop.models.unet.config import UnetSizes
from genloop.models.unet.model import DepthwiseBlock
from genloop.registry import require
from tests.runs import ROOT

BASE = ROOT / "ckpts/tiny/sd"
SIZES = UnetSizes(channels=(8, 16), layers=1, heads=2, num_groups=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline with a fresh UNet of depthwise blocks, none of whose weights is zero."""
    base = check_diffusion_folder(BASE)
    unet = fresh_unet(SIZES.unet_config(base.unet), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in unet.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    pipeline = load_diffusion(base, grid=base.grid(None, None), unet=unet).pipeline
    save_pipeline(pipeline, found := tmp_path_factory.mktemp("unet") / "pipeline")
    return found


def ask(unet: Any, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    latents, words = (torch.randn(2, *shape, generator=generator) for shape in ((4, height, width), (5, 16)))
    with torch.inference_mode():
        found: torch.Tensor = unet(latents, torch.tensor([3, 700]), encoder_hidden_states=words, return_dict=False)[0]
    return found


@pytest.mark.parametrize("channels", [8, 16])
def test_a_fresh_block_is_its_skip_connection(channels: int) -> None:
    block = DepthwiseBlock(8, channels, 12, 4)
    x, time = torch.randn(2, 8, 5, 6), torch.randn(2, 12)
    assert torch.equal(block(x, time), x if channels == 8 else block.shortcut(x))
    block.conv2[1].weight.data.normal_()
    assert not torch.equal(block(x, time), block(x, time + 1)), "the time matters"


def test_a_block_takes_a_fifth_of_the_weights_of_a_stock_one() -> None:
    stock = require("diffusers").models.resnet.ResnetBlock2D(in_channels=64, temb_channels=32, groups=32)
    counts = [
        sum(parameter.numel() for parameter in one.parameters()) for one in (DepthwiseBlock(64, 64, 32, 32), stock)
    ]
    assert counts == [14_080, 76_224]


def test_between_the_first_and_the_last_every_wide_convolution_is_depthwise() -> None:
    unet = empty_unet(SIZES.unet_config(check_diffusion_folder(BASE).unet))
    wide = {name: m for name, m in unet.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)}
    assert {name for name, m in wide.items() if m.groups != m.in_channels} == {"conv_in", "conv_out"}
    assert len(wide) > 10


def test_diffusers_alone_reads_the_folder_and_says_the_same(folder: Path) -> None:
    base = check_diffusion_folder(folder)
    ours = load_diffusion(base, grid=base.grid(None, None)).pipeline.unet
    theirs = require("diffusers").StableDiffusionPipeline.from_pretrained(folder, local_files_only=True).unet
    for height, width in ((8, 8), (16, 16), (6, 10)):
        assert torch.equal(ask(ours, height, width), ask(theirs, height, width))
        assert ask(ours, height, width).shape == (2, 4, height, width)


def test_weights_are_those_of_their_seed_and_leave_the_global_state_alone() -> None:
    config, state = SIZES.unet_config(check_diffusion_folder(BASE).unet), torch.get_rng_state()
    one, same, other = (fresh_unet(config, seed=seed).conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other) and torch.equal(torch.get_rng_state(), state)


def test_a_unet_of_another_class_is_refused_and_layers_are_left_out_of_stock_ones_alone(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"^features"):
        kept_layers(check_diffusion_folder(folder).unet, [0], [], mid=True, key="features")
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "unet/config.json").read_text())
    (other / "unet/config.json").write_text(json.dumps(config | {"_class_name": "UNet3DConditionModel"}))
    with pytest.raises(ValueError, match="_class_name"):
        check_diffusion_folder(other)


@pytest.mark.parametrize(
    ("words", "key"),
    [({"attention_from": 2}, "attention_from"), ({"num_groups": 3}, "channels"), ({"heads": 5}, "channels")],
)
def test_sizes_that_do_not_fit_are_named(words: dict[str, int], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.{key}"):
        SIZES.model_copy(update=words).check()
