"""A UNet without some layers keeps the others' weights."""

from typing import Any

import pytest
import torch

from genloop.models.diffusion.pruning import kept_layers, prune_unet, source_name
from genloop.registry import require
from tests.worlds.tiny_diffusion import UNET


@pytest.fixture(scope="module")
def unet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return require("diffusers").UNet2DConditionModel(**UNET | {"layers_per_block": 2}).eval()


def ask(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        output: torch.Tensor = unet(latents, torch.tensor([500]), encoder_hidden_states=text).sample
    return output


@pytest.mark.parametrize("mid", [True, False])
def test_kept_layers_have_the_weights_of_their_sources(unet: Any, mid: bool) -> None:
    kept = kept_layers(unet.config, [0], [0, 2], mid=mid)
    small, whole = prune_unet(unet, kept, mid=mid), unet.state_dict()
    assert (small.mid_block is not None) == mid
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in unet.parameters())
    assert all(torch.equal(value, whole[source_name(name, kept)]) for name, value in small.state_dict().items())
    assert source_name("up_blocks.0.attentions.1.proj_in", kept) == "up_blocks.0.attentions.2.proj_in"
    assert ask(small).isfinite().all() and not torch.equal(ask(small), ask(unet))
    small.conv_in.weight.data.zero_()
    assert whole["conv_in.weight"].any()


def test_keeping_all_layers_changes_nothing(unet: Any) -> None:
    assert torch.equal(ask(prune_unet(unet, kept_layers(unet.config, [], [], mid=True), mid=True)), ask(unet))


@pytest.mark.parametrize(
    ("down", "up", "said"),
    [([1], [0, 2], "down"), ([0], [0, 1], "up"), ([0], [0, 1, 2], "up"), ([0, 2], [], "down"), ([0], [2, 0], "up")],
)
def test_layers_that_cannot_be_left_out_are_named(unet: Any, down: list[int], up: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=rf"^features\.{said}"):
        kept_layers(unet.config, down, up, mid=True, key="features")
