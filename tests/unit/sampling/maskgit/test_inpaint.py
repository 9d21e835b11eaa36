"""Inpainting keeps what is outside the hole; images are fitted as published."""

import numpy as np
import pytest
import torch

from genloop.sampling.maskgit.inpaint import fill, fit_square, hole_tokens, inpaint
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from tests.worlds.tiny_showo import PROMPTS, pixels_of, random_codes, seeds_of, tiny_showo


def sampler() -> MaskGitSampler:
    model = tiny_showo()
    return MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=4))


def test_only_the_hole_is_painted() -> None:
    paint = sampler()
    codes = random_codes(paint.model, 2)
    images = paint.decode(codes)
    holes = torch.zeros(2, 8, 8)
    holes[:, :4, 4:] = 1
    final = inpaint(paint, PROMPTS[:2], seeds_of(PROMPTS[:2]), images, holes)
    hole = torch.zeros(2, 4, 4, dtype=torch.bool)
    hole[:, :2, 2:] = True
    assert torch.equal(hole_tokens(holes, (4, 4)), hole.flatten(1))
    assert torch.equal(final.tokens[~hole.flatten(1)], codes[~hole.flatten(1)])
    assert not torch.equal(final.tokens, codes)
    assert torch.equal(paint.decode(final.tokens)[:, :, 4:], images[:, :, 4:])


def test_inpainting_is_decoding_with_known_tokens() -> None:
    paint = sampler()
    codes = random_codes(paint.model, 2)
    holes = torch.zeros(2, 8, 8)
    holes[:, 2:6, 2:6] = 1
    known = codes.masked_fill(hole_tokens(holes, (4, 4)), paint.mask_code)
    seeds = seeds_of(PROMPTS[:2])
    expected = fill(paint, PROMPTS[:2], seeds, known)
    assert torch.equal(inpaint(paint, PROMPTS[:2], seeds, paint.decode(codes), holes).tokens, expected.tokens)


def test_a_cell_is_painted_when_half_of_it_is() -> None:
    holes = torch.zeros(1, 64, 64)
    holes[:, :, 24:] = 1  # the middle of column 1 of 4
    assert hole_tokens(holes, (4, 4)).view(4, 4).tolist() == [[False, True, True, True]] * 4


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="10x10 pixels make 25 tokens, the model has a grid of 4x4"):
        inpaint(sampler(), PROMPTS[:1], seeds_of(PROMPTS[:1]), torch.zeros(1, 3, 10, 10), torch.zeros(1, 10, 10))


@pytest.mark.parametrize(("height", "width"), [(40, 30), (30, 40), (24, 24), (25, 33)])
def test_images_are_fitted_into_a_square(height: int, width: int) -> None:
    image = np.full((height, width, 3), 200, dtype=np.uint8)
    fitted = fit_square(image, 16)
    assert fitted.shape == (3, 16, 16)
    assert torch.allclose(fitted, torch.tensor(200 / 255))


def test_the_middle_is_kept() -> None:
    image = np.zeros((8, 24, 3), dtype=np.uint8)
    image[:, 8:16] = 255
    assert torch.equal(fit_square(image, 8), torch.ones(3, 8, 8))
