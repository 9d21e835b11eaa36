"""Extrapolation with MaskGIT: grow an image beyond its borders (Show-o's t2i extrapolation).

B = images, S = side of the model's square grid, h, w = rows and columns of the canvas of tokens. Each direction shows
the model a window with a band of the canvas that touches the border, S/2 - overlap tokens wide, and lets it draw the
rest. Where the canvas is longer than the window, windows slide along the border by half a window and see what the
ones before them drew: directions combine in any order, which the reference's code does not allow.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genloop.protocols import Sampler, Strategy
from genloop.records import Candidate, Choice, Cost, Prompt, Seed
from genloop.sampling.maskgit.inpaint import encode_square, fill
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.windows import check_growth, grown, window_starts
from genloop.sampling.modes import ReadGiven

DIRECTIONS = ("left", "right", "up", "down")


class Canvas(NamedTuple):
    """Images of any size."""

    tokens: Tensor  # (B, h, w)
    revealed_at: Tensor  # (B, h, w): the step that fixed a token, counted over all windows; 0 where given


def extrapolation(sampler: MaskGitSampler, options: Any, given: ReadGiven) -> tuple[Sampler[Any], Strategy]:
    """mode=extrapolate: a sampler that decodes images of the grown size, and what draws them."""
    grid, num_windows = grown(sampler.grid, options.directions, options.overlap)
    view = copy.copy(sampler)
    view.grid = grid
    view.num_steps = num_windows * sampler.num_steps
    cells = sampler.grid[0] * sampler.grid[1]
    view.flops_per_decode = sampler.flops_per_decode * grid[0] * grid[1] / cells
    return view, Extrapolation(sampler, view, options, given)


@dataclass(frozen=True)
class Extrapolation:
    """Implements `genloop.protocols.Strategy`: one canvas an image, as there is no way to judge a part of one."""

    sampler: MaskGitSampler
    view: MaskGitSampler  # for images of the grown size
    options: Any  # of the mode
    given: ReadGiven

    def search(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> Iterator[Choice]:
        """See `Strategy.search`."""
        for start in range(0, len(pairs), self.sampler.slots):
            yield from self._grow_all(pairs[start : start + self.sampler.slots], run_seed)

    def _grow_all(self, pairs: Sequence[tuple[Prompt, int]], run_seed: int) -> Iterator[Choice]:
        prompts = [prompt for prompt, _ in pairs]
        seeds = [Seed(run_seed, prompt.index, sample, 0) for prompt, sample in pairs]
        images = {prompt.index: self.given(prompt.index).image for prompt in prompts}
        codes = {index: encode_square(self.sampler, image) for index, image in images.items()}
        start = torch.stack([codes[prompt.index] for prompt in prompts]).unflatten(1, self.sampler.grid)
        directions = self.options.directions
        texts = [prompts] * len(directions)
        canvas = extrapolate(self.sampler, texts, seeds, start, directions, overlap=self.options.overlap)
        steps = self.view.num_steps
        cost = Cost(steps, 0, steps * self.view.flops_per_step + self.view.flops_per_decode)
        for tokens, revealed_at in zip(canvas.tokens.flatten(1).cpu().numpy(), canvas.revealed_at.flatten(1)):
            yield Choice(0, [Candidate(0, tokens, {"revealed_at": revealed_at.cpu().numpy()}, steps)], cost)


def extrapolate(
    sampler: MaskGitSampler,
    prompts: Sequence[Sequence[Prompt]],
    seeds: Sequence[Seed],
    canvas: Tensor,
    directions: Sequence[str],
    *,
    overlap: int = 0,
) -> Canvas:
    """canvas (B, h, w) codes, at least S x S; prompts: for each direction one per image -> the grown canvas.

    Each direction adds S/2 + overlap rows or columns.
    """
    check_growth(sampler.grid, overlap)
    side = sampler.grid[0]
    if min(canvas.shape[1:]) < side:
        raise ValueError(f"a canvas of {canvas.shape[1]}x{canvas.shape[2]} tokens is smaller than the grid of {side}")
    if len(prompts) != len(directions):
        raise ValueError(f"{len(directions)} directions need as many lists of prompts, found {len(prompts)}")
    drawn, layers = 0, torch.stack([canvas, torch.zeros_like(canvas)], dim=1)
    for direction, texts in zip(directions, prompts):
        if direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {direction!r} ({', '.join(DIRECTIONS)})")
        layers, drawn = _grow(sampler, texts, seeds, layers, direction, side // 2 + overlap, drawn)
    return Canvas(*layers.unbind(1))


def _grow(
    sampler: MaskGitSampler,
    prompts: Sequence[Prompt],
    seeds: Sequence[Seed],
    layers: Tensor,
    direction: str,
    added: int,
    drawn: int,
) -> tuple[Tensor, int]:
    """One direction of layers (B, 2, h, w): codes, and the steps that fixed them, -1 where none did.

    `drawn` counts the windows so far, which keys their noise apart.
    """
    side = sampler.grid[0]
    turned = _turn(layers, direction)  # (B, 2, h', w'): new columns go to the right
    rows, columns = turned.shape[2:]
    wide = torch.nn.functional.pad(turned, (0, added), value=sampler.mask_code)
    wide[:, 1, :, columns:] = -1
    first = columns + added - side
    for top in window_starts(rows, side):
        codes, fixed = _turn_back(wide[:, :, top : top + side, first:], direction).flatten(2).unbind(1)
        state = fill(sampler, prompts, seeds, codes, round=drawn)
        fixed = torch.where(fixed < 0, drawn * sampler.num_steps + state.revealed_at, fixed)
        filled = torch.stack([state.tokens, fixed], dim=1).unflatten(2, (side, side))
        wide[:, :, top : top + side, first:] = _turn(filled, direction)
        drawn += 1
    return _turn_back(wide, direction), drawn


def _turn(layers: Tensor, direction: str) -> Tensor:
    """Mirror or transpose so that the direction to grow points right."""
    if direction in {"up", "down"}:
        layers = layers.transpose(2, 3)
    return layers.flip(3) if direction in {"left", "up"} else layers


def _turn_back(layers: Tensor, direction: str) -> Tensor:
    """The inverse of `_turn`."""
    if direction in {"left", "up"}:
        layers = layers.flip(3)
    return layers.transpose(2, 3) if direction in {"up", "down"} else layers
