"""An image that is reopened keeps what was fixed before, and is drawn again by its own seed alone."""

import numpy as np
import pytest

from genloop.sampling.maskgit.reopen import Reopened, reopen
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from tests.worlds.tiny_showo import PROMPTS, pixels_of, seeds_of, tiny_showo

SOME = PROMPTS[1:5]
STEPS = 6
AT = np.array([1, 2, 4, 5])


@pytest.fixture(scope="module")
def sampler() -> MaskGitSampler:
    model = tiny_showo()
    return MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=STEPS))


@pytest.fixture(scope="module")
def images(sampler) -> tuple[np.ndarray, np.ndarray]:
    """Codes and the steps that fixed them, (4, n) each."""
    state = sampler.start(SOME, seeds_of(SOME))
    for _ in range(STEPS):
        state = sampler.step(state)
    return state.tokens.numpy(), state.revealed_at.numpy()


def again(sampler, images, *, rows=slice(None), run: int = 9, num_steps: int = 4) -> Reopened:
    codes, steps = images
    return reopen(
        sampler, SOME[rows], seeds_of(SOME, run=run)[rows], codes[rows], steps[rows], AT[rows], num_steps=num_steps
    )


@pytest.mark.parametrize("num_steps", [1, 4, 30])
def test_what_was_fixed_before_stays_and_the_rest_is_drawn_by_the_steps_there_are(sampler, images, num_steps):
    codes, steps = images
    found = again(sampler, images, num_steps=num_steps)
    assert (found.kept == (steps < AT[:, None])).all()
    assert (found.codes[found.kept] == codes[found.kept]).all() and (found.codes < sampler.mask_code).all()
    assert (found.steps[found.kept] == steps[found.kept]).all()
    drawn = (found.steps - AT[:, None])[~found.kept]
    assert drawn.min() == 0 and drawn.max() < num_steps
    assert (found.codes != codes).any(axis=1).any()


def test_an_image_depends_on_its_seed_and_on_no_other_image(sampler, images):
    together, other = again(sampler, images), again(sampler, images, run=10)
    for row in range(len(SOME)):
        alone = again(sampler, images, rows=slice(row, row + 1))
        assert all((one[0] == all_of[row]).all() for one, all_of in zip(alone, together, strict=True))
    assert (together.codes != other.codes).any()


def test_an_image_without_anything_to_draw_is_refused(sampler, images):
    codes, steps = images
    with pytest.raises(ValueError, match="step 6"):
        reopen(sampler, SOME[:1], seeds_of(SOME[:1]), codes[:1], steps[:1], np.array([STEPS]), num_steps=2)
