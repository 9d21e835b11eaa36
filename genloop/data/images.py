"""Pixels on their way to a file: tensors in [0, 1] -> uint8 arrays -> PNG; what may go wrong on the way back."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


def to_uint8(images: "Tensor") -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8, clamped and truncated as Show-o does."""
    scaled = images.detach().float().clamp(0, 1) * 255
    return scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def decoding_errors() -> tuple[type[Exception], ...]:
    """All that Pillow raises for a file that is no image, broken or too large."""
    from PIL import Image

    return OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError


def upright_rgb(image: "Image") -> np.ndarray:
    """An image of Pillow -> (H, W, 3) uint8 RGB, turned as its EXIF data says, transparency dropped."""
    from PIL import ImageOps
    from PIL.Image import fromarray

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
        upright = fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return np.asarray(upright.convert("RGB"))


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
