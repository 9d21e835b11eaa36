"""Extrapolation grows a canvas in any order of directions and never touches what is there."""

import pytest
import torch
from torch import Tensor

from genloop.records import Prompt
from genloop.sampling.maskgit import windows
from genloop.sampling.maskgit.extrapolate import extrapolate
from genloop.sampling.maskgit.inpaint import fill
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from tests.worlds.tiny_showo import PROMPTS, pixels_of, random_codes, seeds_of, tiny_config, tiny_showo

TWO = PROMPTS[2:4]
SIDE = 4
OFFSETS = {"left": (0, 1), "right": (0, 0), "up": (1, 0), "down": (0, 0)}


def sampler() -> MaskGitSampler:
    model = tiny_showo()
    return MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=3))


def square(grow: MaskGitSampler) -> Tensor:
    return random_codes(grow.model, 2).unflatten(1, (SIDE, SIDE))


def grown(directions: list[str], overlap: int = 0) -> tuple[Tensor, Tensor]:
    """The canvas before and after."""
    grow = sampler()
    canvas = square(grow)
    return canvas, extrapolate(grow, [TWO] * len(directions), seeds_of(TWO), canvas, directions, overlap=overlap).tokens


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize(
    "directions",
    [["right"], ["left"], ["up"], ["down"], ["down", "down"], ["right", "down"], ["up", "left", "up", "right"]],
)
def test_a_canvas_grows_in_every_order_and_keeps_its_middle(directions: list[str], overlap: int) -> None:
    before, after = grown(directions, overlap)
    added = SIDE // 2 + overlap
    columns = added * sum(direction in {"left", "right"} for direction in directions)
    rows = added * sum(direction in {"up", "down"} for direction in directions)
    assert after.shape == (2, SIDE + rows, SIDE + columns)
    top, left = added * directions.count("up"), added * directions.count("left")
    assert torch.equal(after[:, top : top + SIDE, left : left + SIDE], before)
    assert (after >= 0).all()
    assert (after < sampler().mask_code).all()


def test_one_direction_is_decoding_behind_the_border() -> None:
    """As published: the band at the border is known, the rest of the window is drawn."""
    grow = sampler()
    canvas = square(grow)
    window = torch.full((2, SIDE, SIDE), grow.mask_code)
    window[:, :, 0] = canvas[:, :, -1]
    expected = fill(grow, TWO, seeds_of(TWO), window.flatten(1)).tokens.view(2, SIDE, SIDE)
    after = extrapolate(grow, [TWO], seeds_of(TWO), canvas, ["right"], overlap=1)
    assert torch.equal(after.tokens, torch.cat([canvas[:, :, :-1], expected], dim=2))


@pytest.mark.parametrize("directions", [["right"], ["right", "down"], ["up", "left", "up", "right"]])
def test_every_token_tells_its_step_and_the_size_is_known_before(directions: list[str]) -> None:
    grow = sampler()
    after = extrapolate(grow, [TWO] * len(directions), seeds_of(TWO), square(grow), directions)
    size, num_windows = windows.grown(grow.grid, directions, 0)
    assert after.tokens.shape[1:] == after.revealed_at.shape[1:] == size
    assert (after.revealed_at == 0).sum() >= 2 * SIDE * SIDE
    last = (num_windows - 1) * grow.num_steps
    assert last <= after.revealed_at.max() < last + grow.num_steps and after.revealed_at.min() == 0


def test_a_second_step_down_stands_on_the_first() -> None:
    grow = sampler()
    canvas = square(grow)
    once = extrapolate(grow, [TWO], seeds_of(TWO), canvas, ["down"]).tokens
    twice = extrapolate(grow, [TWO, TWO], seeds_of(TWO), canvas, ["down", "down"]).tokens
    assert torch.equal(twice[:, : SIDE + 2], once)


def test_every_direction_has_its_own_prompt() -> None:
    grow = sampler()
    canvas = square(grow)
    other = [Prompt(prompt.index, "a") for prompt in TWO]
    same, changed = (
        extrapolate(grow, [TWO, second], seeds_of(TWO), canvas, ["right", "down"]).tokens for second in (TWO, other)
    )
    assert torch.equal(same[:, :SIDE], changed[:, :SIDE])
    assert not torch.equal(same[:, SIDE:], changed[:, SIDE:])


@pytest.mark.parametrize(
    ("directions", "overlap", "message"),
    [
        (["rigth"], 0, "direction 'rigth'"),
        (["right"], 2, "overlap is 2"),
        (["right"], -1, "overlap is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(directions: list[str], overlap: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grown(directions, overlap)


def test_a_canvas_below_the_grid_is_refused() -> None:
    grow = sampler()
    with pytest.raises(ValueError, match="canvas of 3x4"):
        extrapolate(grow, [TWO], seeds_of(TWO), square(grow)[:, :3], ["right"])
    with pytest.raises(ValueError, match=r"1 directions .*found 0"):
        extrapolate(grow, [], seeds_of(TWO), square(grow), ["right"])


def test_a_model_whose_grid_is_not_square_is_refused() -> None:
    model = tiny_showo(tiny_config(num_tokens=12))
    wide = MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=2))
    assert wide.grid == (3, 4)
    with pytest.raises(ValueError, match="square grid, found 3x4"):
        extrapolate(wide, [PROMPTS[1:2]], seeds_of(PROMPTS[1:2]), torch.zeros(1, 4, 4, dtype=torch.int64), ["left"])
