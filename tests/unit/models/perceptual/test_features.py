"""Perceptual distances of training: 0 between equals, more for more damage, and what metrics and formulas say."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, pad

from genloop.metrics.paired.pixels import Pixels
from genloop.metrics.paired.structure import ms_ssim
from genloop.models.diffusion.fresh import fresh_vae
from genloop.models.perceptual.features import (
    ConvPyramid,
    encoder_features,
    feature_distance,
    ms_ssim_distance,
    scales_of,
)

Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def distances() -> dict[str, Distance]:
    pyramid = ConvPyramid(0)
    vae = fresh_vae(channels=[8, 16], latent_channels=4, layers=1, num_groups=4, side=48, seed=0).requires_grad_(False)
    return {
        "vae": lambda a, b: feature_distance(encoder_features(vae, a), encoder_features(vae, b)),
        "pyramid": lambda a, b: feature_distance(pyramid(a), pyramid(b)),
        "ms_ssim": ms_ssim_distance,
    }


def picture(seed: int = 0) -> torch.Tensor:
    """(1, 3, 48, 48) in [-1, 1]: patches of colour"""
    patches = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return patches.repeat_interleave(8, 2).repeat_interleave(8, 3)


def blurred(image: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        image = avg_pool2d(pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return image


@pytest.mark.parametrize("name", distances())
def test_equal_images_have_distance_0_and_damage_is_seen_in_its_order(name: str) -> None:
    distance, image = distances()[name], picture()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3))
    assert distance(image, image).abs().max() < 1e-6
    for damaged in ([blurred(image, n) for n in (1, 4, 12)], [image + size * noise for size in (0.05, 0.2, 0.8)]):
        values = [float(distance(one, image)) for one in damaged]
        assert values == sorted(values) and values[0] > 1e-4


@pytest.mark.parametrize("name", distances())
def test_rows_do_not_depend_on_each_other_and_flat_images_have_gradients(name: str) -> None:
    distance, images = distances()[name], torch.cat([picture(0), picture(1), torch.zeros(1, 3, 48, 48)])
    images.requires_grad_()
    found = distance(images, picture(2).expand_as(images))
    torch.testing.assert_close(found[1:2], distance(images[1:2], picture(2)))
    found.sum().backward()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad[0].any()


def test_the_distance_of_features_is_that_of_unit_vectors() -> None:
    generator = torch.Generator().manual_seed(4)
    ours, theirs = ([torch.randn(2, c, 3, 3, generator=generator) for c in (4, 8)] for _ in range(2))
    wanted = []
    for a, b in zip(ours, theirs):
        x, y = (values.numpy().astype(np.float64) for values in (a, b))
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        wanted.append((2 - 2 * cosine).mean(axis=(1, 2)))
    np.testing.assert_allclose(feature_distance(ours, theirs).numpy(), np.mean(wanted, axis=0), rtol=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(24, 2), (48, 3), (176, 5)])
def test_ms_ssim_is_that_of_the_metrics(side: int, scales: int) -> None:
    rng = np.random.default_rng(5)
    reference = rng.integers(256, size=(2, side, side, 1)).astype(np.float64)
    candidate = np.clip(reference + rng.normal(0, 40, reference.shape), 0, 255)
    # in grey, as the metrics round luma to whole numbers
    pairs = [Pixels(images.astype(np.uint8).repeat(3, axis=3)) for images in (candidate, reference)]
    tensors = [torch.from_numpy(p.images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1 for p in pairs]
    assert scales_of(side) == scales
    np.testing.assert_allclose(ms_ssim_distance(*tensors).numpy(), 1 - ms_ssim(scales)(*pairs), atol=2e-5)


def test_the_pyramid_is_that_of_its_seed() -> None:
    one, same, other = (list(ConvPyramid(seed).buffers()) for seed in (0, 0, 1))
    assert all(map(torch.equal, one, same)) and not torch.equal(one[0], other[0])


def test_ms_ssim_is_computed_in_single_precision_in_a_training_of_half() -> None:
    image, other = picture(), blurred(picture(), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ms_ssim_distance(image, other)
    assert torch.equal(found, ms_ssim_distance(image, other))
