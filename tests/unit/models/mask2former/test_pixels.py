"""How images are prepared: sizes, resizing in 8 bits and in numbers, padding."""

import numpy as np
import pytest
import torch

from genloop.models.mask2former.config import Preparation
from genloop.models.mask2former.pixels import prepare, resize_bytes, resize_floats, sizes_of

PUBLIC = (1333, 800)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "resized", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((427, 640), (800, 1199), (800, 1216)),
        ((500, 333), (1201, 800), (1216, 800)),
        ((100, 430), (310, 1333), (320, 1344)),
        ((1, 5000), (1, 1333), (32, 1344)),
    ],
)
def test_an_image_just_fits_a_long_and_a_short_side(shape, resized, padded):
    assert sizes_of(shape, PUBLIC) == (shape, resized, padded)


@pytest.mark.parametrize("size", [(24, 40), (11, 7), (48, 80), (12, 20), (24, 41), (1, 1)])
def test_8_bit_resizing_stays_next_to_that_of_numbers(size):
    image = torch.from_numpy(noise(24, 40))
    bytes_, numbers = resize_bytes(image, size), resize_floats(image, size).permute(1, 2, 0)
    assert bytes_.dtype == torch.uint8 and bytes_.shape == (*size, 3)
    assert (bytes_.float() - numbers).abs().max() <= 1
    if size == (24, 40):
        assert torch.equal(bytes_, image)


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_plain_image_stays_plain(value):
    image = torch.full((5, 9, 3), value, dtype=torch.uint8)
    assert torch.equal(resize_bytes(image, (13, 4)), torch.full((13, 4, 3), value, dtype=torch.uint8))
    assert torch.equal(resize_floats(image, (13, 4)), torch.full((3, 13, 4), float(value)))


def test_padding_is_zero_in_3_and_grey_in_2():
    image = noise(20, 50)
    three, two = (prepare(image, Preparation(name, (80, 40))) for name in ("mmdet3", "mmdet2"))
    assert three.shape == two.shape == (3, 32, 96)
    assert not three[:, :, 80:].any() and three[:, :, :80].all()
    grey = (128 - np.array([123.675, 116.28, 103.53])) / [58.395, 57.12, 57.375]
    assert np.allclose(two[:, :, 80:].amin(dim=(1, 2)), grey) and np.allclose(two[:, :, 80:].amax(dim=(1, 2)), grey)
    assert (three - two)[:, :, :80].abs().max() < 1 / 57 + 1e-6
    assert image.flags.writeable and prepare(np.flip(image, 1), Preparation("mmdet3", (80, 40))).shape == three.shape
