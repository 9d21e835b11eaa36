"""Pixels on their way to a file: tensors in [0, 1] -> uint8 arrays -> PNG; the one place that opens image files."""

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from genloop.reading import regular_file

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of the formats that are read
OTHER_SUFFIXES = (
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".heic",
    ".heif",
    ".jfif",
    ".jpe",
    ".jp2",
    ".jxl",
    ".ppm",
) + (*(".pgm", ".tga"),)
_FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow knows 40 more, and starts other programs for some of them
_ORIENTATION = 0x0112  # of EXIF


def to_uint8(images: "Tensor") -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8, clamped and truncated as Show-o does."""
    scaled = images.detach().float().clamp(0, 1) * 255
    return scaled.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def decoding_errors() -> tuple[type[Exception], ...]:
    """All that Pillow raises for a file that is no image, broken or too large."""
    from PIL import Image

    return OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError


def open_image(file: Path | BinaryIO) -> "Image":
    """The header of a PNG, JPEG or WebP file, whatever its name; `decoding_errors` for anything else."""
    from PIL import Image

    return Image.open(regular_file(file) if isinstance(file, Path) else file, formats=_FORMATS)


def upright_rgb(image: "Image") -> np.ndarray:
    """An image of Pillow -> (H, W, 3) uint8 RGB, turned as its EXIF data says, transparency dropped.

    Of the EXIF data the orientation alone is read. Raises `decoding_errors`.
    """
    from PIL.Image import fromarray

    image.load()  # before anything is forgiven: EXIF data of a PNG may lie behind its pixels
    turn, upright = _turn(image), image
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
        upright = fromarray((np.asarray(image) >> 8).astype(np.uint8))
    upright = upright.convert("RGB")
    return np.asarray(upright if turn is None else upright.transpose(turn))


def _turn(image: "Image") -> "Transpose | None":
    """What makes an image upright; None where it is, or where its EXIF data says nothing that can be read."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    with suppress(*decoding_errors()):
        return turns.get(image.getexif().get(_ORIENTATION, 1))
    return None


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
