"""A lossless image tokenizer for the embedded world: one code for every distinct 4 x 4 patch its renderer can draw.

Implements the ImageTokenizer protocol. Code 0 is the background. The codebook is enumerated, not learned: every shape
in every colour, so combinations that no prompt names have codes too. A patch that is not in it gets the nearest code.
B = images, K = codes, N = patches of an image.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.checkpoint import load_tensors, save_folder
from genloop.reading import read_json_object
from genloop.records import COLORS
from genloop.shapes.render import render
from genloop.shapes.scenes import CELL, GRID, SHAPES, SPAN, Thing

CLASS_NAME = "PatchCodebook"


class PatchCodebook:
    """Codes are rows of `patches` (K, 3, p, p) uint8; images are cut into p x p patches, row by row."""

    def __init__(self, patches: Tensor, grid: tuple[int, int], background_code: int = 0) -> None:
        if patches.ndim != 4 or patches.shape[1] != 3 or patches.shape[2] != patches.shape[3]:
            raise ValueError(f"patches must be (K, 3, p, p), found {tuple(patches.shape)}")
        self.patches = patches
        self.grid = grid
        self.background_code = background_code

    @property
    def num_codes(self) -> int:
        """Number of patches in the codebook."""
        return len(self.patches)

    @property
    def patch_size(self) -> int:
        """Pixels along a side of a patch."""
        return self.patches.shape[-1]

    @classmethod
    def enumerate(cls) -> "PatchCodebook":
        """The codebook of everything the renderer draws: background first, then colour by colour, shape by shape."""
        things = [(Thing(shape, color, 0, 0),) for color in COLORS for shape in SHAPES]
        images = torch.from_numpy(render(things)).permute(0, 3, 1, 2)  # (100, 3, 24, 24)
        background = _cut(images[:1], CELL)[0, -1:]
        parts = _cut(images[:, :, : SPAN * CELL, : SPAN * CELL], CELL).flatten(0, 1)
        patches = torch.cat([background, parts])
        first = {patch.numpy().tobytes(): index for index, patch in reversed(list(enumerate(patches)))}
        return cls(patches[sorted(first.values())].contiguous(), (GRID, GRID))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N) int64: the nearest patch by squared distance, the lower code when equal."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"image sides must be multiples of {self.patch_size}, found {height} x {width}")
        pixels = (images.float().clamp(0, 1) * 255).round()
        wanted = _cut(pixels, self.patch_size).flatten(2)  # (B, N, 3pp)
        known = self.patches.to(wanted.device).float().flatten(1)  # (K, 3pp)
        closeness = 2 * wanted @ known.T - known.square().sum(dim=1)  # integers below 2**24: exact in float32
        return closeness.argmax(dim=-1)

    def decode(self, codes: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
        """(B, N) int64 on a grid of `shape` (default `grid`) -> (B, 3, H, W) float32 in [0, 1]."""
        rows, columns = shape or self.grid
        if codes.shape[1] != rows * columns:
            raise ValueError(f"{codes.shape[1]} codes do not fill a {rows} x {columns} grid")
        patches = self.patches.to(codes.device)[codes].unflatten(1, (rows, columns))  # (B, r, c, 3, p, p)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3).float() / 255

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder: config.json, the patches, a manifest."""
        config = {"_class_name": CLASS_NAME, "grid": list(self.grid), "background_code": self.background_code}
        save_folder(folder, {"patches": self.patches}, {"config.json": config})


def load_codebook(folder: Path, *, device: str = "cpu") -> PatchCodebook:
    """Read what `PatchCodebook.save` wrote."""
    config = read_json_object(folder / "config.json")
    if config.get("_class_name") != CLASS_NAME:
        raise ValueError(f"{folder}/config.json: _class_name is {config.get('_class_name')!r}, not {CLASS_NAME!r}")
    tensors = load_tensors(folder, device=device)
    if list(tensors) != ["patches"]:
        raise ValueError(f"{folder}: a patch codebook holds `patches`, found {', '.join(tensors)}")
    grid, background = config.get("grid"), config.get("background_code")
    sizes: list[Any] = [*grid, background] if isinstance(grid, list) else []
    if len(sizes) != 3 or not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
        raise ValueError(f"{folder}/config.json: needs a grid of two sizes, and a background_code")
    return PatchCodebook(tensors["patches"], (sizes[0], sizes[1]), sizes[2])


def _cut(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C, size, size), row-major."""
    patches = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, C, r, p, c, p)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
