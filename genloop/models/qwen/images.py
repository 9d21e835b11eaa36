"""Images between the tokens of a chat: how many tokens one takes, its pixels, and the features that stand for them.

Qwen2-VL and Qwen2.5-VL (Bai et al. 2025) take any size, cut into patches of which four are one token; LLaVA-OneVision
gets the image padded to one tile, as the judges of this suite do. H, W = pixels, T = tokens of an image, D = hidden
size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.instructblip.model import query_features
from genloop.models.llava.config import parse_hf_config
from genloop.models.llava.model import image_features
from genloop.models.llava.pixels import pad_tile
from genloop.models.qwen.config import ChatFolder
from genloop.records import ChatTurn
from genloop.registry import require


@dataclass(frozen=True, eq=False)
class PatchedImage:
    """One image as its model takes it: pixels, and for Qwen2.5-VL its (time, height, width) in patches."""

    pixels: Tensor
    grid: tuple[int, int, int]
    num_tokens: int
    question: Tensor | None = None  # (q,) ids that InstructBLIP's Q-Former reads beside it


class Pictures:
    """The way of one model with images; ValueError where the model takes none."""

    def __init__(self, folder: ChatFolder) -> None:
        if not folder.sees:
            raise ValueError(f"{folder.folder}: a {folder.family} takes no images")
        self._is_llava = folder.family == "llava_onevision"
        if self._is_llava:
            self._vision = parse_hf_config(dict(folder.config), folder.folder).vision
        else:
            kind = require("transformers").Qwen2VLImageProcessorPil
            self._processor: Any = kind.from_pretrained(str(folder.folder), local_files_only=True)

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """(time, height, width) of an image in patches."""
        if self._is_llava:
            return 1, self._vision.grid, self._vision.grid
        resize = require("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl").smart_resize
        patch, size = self._processor.patch_size, self._processor.size
        factor = patch * self._processor.merge_size
        limits = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        high, wide = resize(height, width, factor=factor, **limits)
        return 1, high // patch, wide // patch

    def num_tokens(self, grid: tuple[int, int, int]) -> int:
        """Tokens that stand for an image of so many patches."""
        patches = grid[0] * grid[1] * grid[2]
        return patches + 1 if self._is_llava else patches // self._processor.merge_size**2

    def take(self, image: np.ndarray) -> PatchedImage:
        """(H, W, 3) uint8 -> a picture."""
        grid = self.grid(*image.shape[:2])
        if self._is_llava:
            return PatchedImage(pad_tile(image, self._vision.image_size), grid, self.num_tokens(grid))
        found = self._processor.preprocess([require("PIL.Image").fromarray(image)], return_tensors="np")
        return PatchedImage(torch.from_numpy(found["pixel_values"]), grid, self.num_tokens(grid))

    def asked(self, images: Sequence[PatchedImage], messages: Sequence[ChatTurn]) -> list[PatchedImage]:
        """Pictures of a chat with what was asked about each, where the model looks at them with the question."""
        return list(images)

    def blank(self) -> PatchedImage:
        """A small grey image."""
        return self.take(np.full((32, 32, 3), 127, dtype=np.uint8))

    def positions(self, kinds: np.ndarray, grids: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """kinds (n,), 0 for text and 1 for tokens of images -> positions (4, n): of text, then time, height, width.

        For LLaVA-OneVision (n,): images stand in line with the text.
        """
        line = np.arange(len(kinds))
        if self._is_llava:
            return line
        starts = np.flatnonzero(np.diff(kinds, prepend=1 - kinds[:1]))
        merge, shown = self._processor.merge_size, iter(grids)
        parts, place = [], 0
        for start, stop in zip(starts, [*starts[1:], len(kinds)]):
            if kinds[start] == 0:
                parts.append(np.tile(np.arange(stop - start), (3, 1)) + place)
                place += int(stop - start)
                continue
            time, high, wide = next(shown)
            cells = np.indices((time, high // merge, wide // merge)).reshape(3, -1)
            parts.append(cells + place)
            place += max(high, wide) // merge
        return np.concatenate([line[None], np.concatenate(parts, axis=1)])


def features_of(
    model: Any, pixels: Sequence[Tensor], grids: Sequence[tuple[int, int, int]], questions: Sequence[Tensor] = ()
) -> Tensor:
    """Pixels of some images -> the features of all their tokens in order (sum of T, D). Differentiable."""
    if model.config.model_type == "instructblip":
        return query_features(model, pixels, questions)
    if model.config.model_type == "llava_onevision":
        return image_features(model, torch.stack(list(pixels))).flatten(0, 1)
    table = torch.tensor(grids)
    sizes = {name: value.to(pixels[0].device) for name, value in _sizes(model.model.visual, table).items()}
    found = model.model.get_image_features(torch.cat(list(pixels)), table, **sizes)
    return torch.cat(tuple(found.pooler_output))


def _sizes(tower: Any, table: Tensor) -> dict[str, Tensor]:
    """What a tower makes of the sizes of images (I, 3); on the host, so that no device is waited for."""
    library = require("transformers.vision_utils")
    merge = tower.spatial_merge_size
    found = {
        "position_ids": library.get_vision_position_ids(table, merge),
        "cu_seqlens": library.get_vision_cu_seqlens(table),
    }
    if hasattr(tower, "window_size"):
        windows = {"window_size": tower.window_size, "patch_size": tower.patch_size}
        names = ("window_index", "cu_window_seqlens")
        found |= dict(zip(names, library.get_vision_window_index(table, spatial_merge_size=merge, **windows)))
    return found
