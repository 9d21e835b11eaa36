"""Inpainting keeps what is outside the hole; images are fitted as published."""

import numpy as np
import pytest
import torch
from torch import Tensor

from genloop.data.images import to_uint8
from genloop.sampling.maskgit.inpaint import encode_square, fill, fit_square, hole_tokens, inpainting
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.modes import GivenImage
from tests.worlds.tiny_showo import PROMPTS, pixels_of, random_codes, seeds_of, tiny_showo

TWO = PROMPTS[2:4]


def sampler() -> MaskGitSampler:
    model = tiny_showo()
    return MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=4))


def holed(paint: MaskGitSampler, box: tuple[slice, slice]) -> tuple[MaskGitSampler, Tensor, Tensor]:
    """A sampler of two images with a hole -> it, their codes (2, n), and where the hole is (n,)."""
    codes = random_codes(paint.model, 2)
    images = to_uint8(paint.decode(codes))
    hole = np.zeros((8, 8), np.uint8)
    hole[box] = 255
    painting, _ = inpainting(paint, None, lambda index: GivenImage(images[index - 2], hole))
    codes = torch.stack([encode_square(paint, image) for image in images])
    return painting, codes, torch.from_numpy(hole[::2, ::2] > 0).flatten()


def test_only_the_hole_is_painted_whatever_is_reopened() -> None:
    painting, codes, hole = holed(sampler(), (slice(0, 4), slice(4, 8)))
    state = painting.start(TWO, seeds_of(TWO))
    assert torch.equal(state.tokens == painting.mask_code, hole.expand(2, -1))
    everything = torch.ones(2, len(hole), dtype=torch.bool)
    again = lambda s: painting.remask(s, everything, 3), lambda s: painting.renoise(s, TWO, 1.0, 2.0)
    for reopen in (lambda s: s, *again, lambda s: painting.correct(s, TWO, "ab")):
        state = reopen(state)
        assert torch.equal(state.tokens == painting.mask_code, hole.expand(2, -1))
        while state.steps[0] < state.lengths[0]:
            state = painting.step(state)
        assert torch.equal(state.tokens[:, ~hole], codes[:, ~hole])
        assert not torch.equal(state.tokens, codes) and (state.tokens < painting.mask_code).all()


def test_inpainting_is_decoding_with_known_tokens() -> None:
    paint = sampler()
    painting, codes, hole = holed(paint, (slice(2, 6), slice(2, 6)))
    seeds = seeds_of(TWO)
    expected = fill(paint, TWO, seeds, codes.masked_fill(hole, paint.mask_code))
    state = painting.start(TWO, seeds)
    for _ in range(painting.num_steps):
        state = painting.step(state)
    assert torch.equal(state.tokens, expected.tokens)


def test_a_hole_without_a_token_is_refused() -> None:
    painting, _, _ = holed(sampler(), (slice(0, 1), slice(0, 1)))
    with pytest.raises(ValueError, match="the mask is too small"):
        painting.start(TWO, seeds_of(TWO))


def test_a_cell_is_painted_when_half_of_it_is() -> None:
    holes = torch.zeros(1, 64, 64)
    holes[:, :, 24:] = 1  # the middle of column 1 of 4
    assert hole_tokens(holes, (4, 4)).view(4, 4).tolist() == [[False, True, True, True]] * 4


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
