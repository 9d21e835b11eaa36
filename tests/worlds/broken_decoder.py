"""An image tokenizer whose decoder loses its images, as one that overflows in half precision does: NaN, or black."""

from pathlib import Path

import torch
from torch import Tensor

from genloop.models.common.image_tokenizers import check_codebook_folder
from genloop.shapes.codebook import PatchCodebook, load_codebook


class _Broken:
    value = float("nan")

    def __init__(self, whole: PatchCodebook) -> None:
        self.whole = whole

    def __getattr__(self, name: str):
        return getattr(self.whole, name)

    def decode(self, codes: Tensor, *args, **keys) -> Tensor:
        """(B, n) -> (B, 3, H, W), one value everywhere."""
        return torch.full_like(self.whole.decode(codes, *args, **keys), self.value)

    @staticmethod
    def check(folder: Path) -> int:
        """The header of the folder of a patch codebook."""
        return check_codebook_folder(folder)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "_Broken":
        """The folder of a patch codebook, with this decoder."""
        return cls(load_codebook(folder, device=device))


class Overflows(_Broken):
    """NaN."""


class Black(_Broken):
    """Black."""

    value = 0.0


class OftenBlack(Black):
    """Black where the codes of an image have an even sum."""

    def decode(self, codes: Tensor, *args, **keys) -> Tensor:
        """(B, n) -> (B, 3, H, W)"""
        return self.whole.decode(codes, *args, **keys) * (codes.sum(1) % 2)[:, None, None, None]
