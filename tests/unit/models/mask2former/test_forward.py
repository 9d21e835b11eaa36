"""Our forward pass of Mask2Former: the same numbers as that of transformers, whatever the shapes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genloop.models.mask2former.forward import _middles, forward
from genloop.models.mask2former.load import load_mask2former
from tests.worlds.tiny_mask2former import TINY, mask2former_folder

HEADS = {
    "tiny": TINY.head,
    "projected": replace(TINY.head, feature_size=64, mask_feature_size=48, num_attention_heads=2),
    "deep": replace(TINY.head, encoder_layers=2, decoder_layers=6, num_queries=30),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", [(1, 3, 96, 160), (2, 3, 160, 64), (1, 3, 72, 52), (1, 3, 32, 1312)])
def test_logits_are_those_of_transformers(tmp_path: Path, head: str, shape: tuple[int, ...]) -> None:
    """Also for sizes that are no multiples of 32, and for more places than are attended to at a time."""
    network = load_mask2former(mask2former_folder(tmp_path / head, config=replace(TINY, head=HEADS[head])))
    pixels = noise(*shape)
    with torch.inference_mode():
        expected = network(pixel_values=pixels)
        classes, masks = forward(network, pixels)
    torch.testing.assert_close(classes, expected.class_queries_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(masks, expected.masks_queries_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "read"), [((5, 6), (10, 12)), ((10, 24), (20, 48)), ((20, 3), (40, 6))])
def test_only_what_a_resize_reads_is_kept(size: tuple[int, int], read: tuple[int, int]) -> None:
    planes = noise(2, 3, 40, 48)
    kept = _middles(planes, torch.Size(size))
    assert kept.shape == (2, 3, *read)
    resized = (interpolate(x, size, mode="bilinear", align_corners=False) for x in (kept, planes))
    assert torch.equal(*resized)


@pytest.mark.parametrize("size", [(40, 48), (8, 16), (13, 16), (7, 9)])
def test_all_is_kept_when_a_resize_reads_elsewhere(size: tuple[int, int]) -> None:
    planes = noise(1, 2, 40, 48)
    assert _middles(planes, torch.Size(size)) is planes
