"""Pixels on their way to a file: tensors in [0, 1] -> uint8 arrays -> PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def to_uint8(images: "Tensor") -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8, clamped and truncated as Show-o does."""
    scaled = images.detach().float().clamp(0, 1) * 255
    return scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def encode_png(image: np.ndarray, texts: Mapping[str, str] | None = None) -> bytes:
    """(H, W, 3) uint8 -> PNG bytes with text chunks {keyword: ASCII text}; the same input gives the same bytes."""
    from PIL import Image, PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    for keyword, text in (texts or {}).items():
        chunks.add_text(keyword, text)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", pnginfo=chunks)
    return stream.getvalue()


def contact_sheet(rows: Sequence[Sequence[np.ndarray | None]], *, gap: int = 2) -> np.ndarray:
    """Pictures (H, W, 3) uint8 of one size on a white sheet, `gap` pixels apart; None leaves a place empty."""
    height, width = next(picture.shape[:2] for row in rows for picture in row if picture is not None)
    columns = max(map(len, rows))
    shape = len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3
    sheet = np.full(shape, 255, dtype=np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            if picture is not None:
                top, left = r * (height + gap), c * (width + gap)
                sheet[top : top + height, left : left + width] = picture
    return sheet
