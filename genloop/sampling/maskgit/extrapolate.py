"""Extrapolation with MaskGIT: grow an image beyond its borders (Show-o's t2i extrapolation).

B = images, S = side of the model's square grid, h, w = rows and columns of the canvas of tokens. Each direction shows
the model a window with a band of the canvas that touches the border, S/2 - overlap tokens wide, and lets it draw the
rest. Where the canvas is longer than the window, windows slide along the border by half a window and see what the
ones before them drew: directions combine in any order, which the reference's code does not allow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.inpaint import fill
from genloop.sampling.maskgit.sampler import MaskGitSampler

DIRECTIONS = ("left", "right", "up", "down")


def extrapolate(
    sampler: MaskGitSampler,
    prompts: Sequence[Sequence[Prompt]],
    seeds: Sequence[Seed],
    canvas: Tensor,
    directions: Sequence[str],
    *,
    overlap: int = 0,
) -> Tensor:
    """canvas (B, h, w) codes, at least S x S; prompts: for each direction one per image -> the grown canvas.

    Each direction adds S/2 + overlap rows or columns.
    """
    side, columns = sampler.grid
    if side != columns:
        raise ValueError(f"extrapolation needs a model with a square grid, found {side}x{columns} tokens")
    if not 0 <= overlap < side // 2:
        raise ValueError(f"overlap is {overlap}, expected 0 to {side // 2 - 1} for a grid of {side}x{side}")
    if min(canvas.shape[1:]) < side:
        raise ValueError(f"a canvas of {canvas.shape[1]}x{canvas.shape[2]} tokens is smaller than the grid of {side}")
    if len(prompts) != len(directions):
        raise ValueError(f"{len(directions)} directions need as many lists of prompts, found {len(prompts)}")
    drawn = 0
    for direction, texts in zip(directions, prompts):
        if direction not in DIRECTIONS:
            raise ValueError(f"unknown direction {direction!r} ({', '.join(DIRECTIONS)})")
        canvas, drawn = _grow(sampler, texts, seeds, canvas, direction, side // 2 + overlap, drawn)
    return canvas


def _grow(
    sampler: MaskGitSampler,
    prompts: Sequence[Prompt],
    seeds: Sequence[Seed],
    canvas: Tensor,
    direction: str,
    added: int,
    drawn: int,
) -> tuple[Tensor, int]:
    """One direction; `drawn` counts the windows so far, which keys their noise apart."""
    side = sampler.grid[0]
    turned = _turn(canvas, direction)  # (B, h', w'): new columns go to the right
    rows, columns = turned.shape[1:]
    grown = torch.nn.functional.pad(turned, (0, added), value=sampler.mask_code)
    first = columns + added - side
    for top in _window_starts(rows, side):
        window = _turn_back(grown[:, top : top + side, first:], direction)
        state = fill(sampler, prompts, seeds, window.flatten(1), round=drawn)
        filled = state.tokens.unflatten(1, (side, side))
        grown[:, top : top + side, first:] = _turn(filled, direction)
        drawn += 1
    return _turn_back(grown, direction), drawn


def _window_starts(length: int, side: int) -> list[int]:
    """Where windows of `side` begin so that they cover `length`, each half over the one before."""
    starts = list(range(0, length - side, max(1, side // 2)))
    return [*starts, length - side]


def _turn(canvas: Tensor, direction: str) -> Tensor:
    """Mirror or transpose so that the direction to grow points right."""
    if direction in {"up", "down"}:
        canvas = canvas.transpose(1, 2)
    return canvas.flip(2) if direction in {"left", "up"} else canvas


def _turn_back(canvas: Tensor, direction: str) -> Tensor:
    """The inverse of `_turn`."""
    if direction in {"left", "up"}:
        canvas = canvas.flip(2)
    return canvas.transpose(1, 2) if direction in {"up", "down"} else canvas
