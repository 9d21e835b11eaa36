"""Images for the page: small data URIs, and the frames of an unmasking filmstrip as overlays drawn in SVG.

A frame is the final image with a hatched cover over the cells that were still masked at that step, so one embedded
image serves all frames of a strip.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genloop.data.image_reader import UnreadableImage, read_image

PIXEL_ART = 96  # px: images up to this side are kept as they are and shown with hard pixel edges
THUMBNAIL = 224  # px: longest side of the embedded copy of larger images
MAX_GAP = 8  # px between the pictures of a contact sheet
SHEET_PICTURE = 96  # px: longest side of a picture in an embedded contact sheet
JPEG_QUALITY = 78
FRAME_WIDTH = 96  # units of the filmstrip drawings; the height follows the grid


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """An embedded image: its data URI and the size at which to reserve space for it, in pixels."""

    uri: str
    width: int
    height: int

    @property
    def is_pixel_art(self) -> bool:
        return max(self.width, self.height) <= PIXEL_ART


@dataclass(frozen=True, slots=True)
class Sheet:
    """Embedded pictures of one size side by side, `columns` in a row; their size in px."""

    picture: EmbeddedImage
    columns: int
    width: int
    height: int

    @property
    def is_pixel_art(self) -> bool:
        return max(self.width, self.height) <= PIXEL_ART


@dataclass(frozen=True, slots=True)
class Frame:
    """What was known after `step` steps: the share of revealed tokens, and the SVG path over the masked cells."""

    step: int
    share: float
    cover: str


def embed(path: Path, side: int = THUMBNAIL) -> EmbeddedImage | None:
    """The image as a data URI, small ones losslessly, others as a JPEG of at most `side` px; None if it is not there
    or broken.
    """
    pixels = _read(path)
    if pixels is None:
        return None
    pixels.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encode(pixels, is_lossless=max(pixels.size) <= PIXEL_ART)


def embed_pixels(pixels: np.ndarray, side: int = THUMBNAIL) -> EmbeddedImage:
    """The same of pixels (H, W, 3) uint8."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encode(image, is_lossless=max(image.size) <= PIXEL_ART)


def embed_sheet(path: Path, rows: int, columns: int, like: Path) -> Sheet | None:
    """A contact sheet of pictures as large as `like`, at equal distances; None if it is not there or does not fit.

    Small pictures are kept as they are, others made smaller.
    """
    pixels, model = _read(path), _read(like)
    if pixels is None or model is None:
        return None
    (width, height), (side_x, side_y) = pixels.size, model.size
    gap_x = (width - columns * side_x) // max(columns - 1, 1)
    gap_y = (height - rows * side_y) // max(rows - 1, 1)
    fits = (columns * (side_x + gap_x) - gap_x, rows * (side_y + gap_y) - gap_y) == pixels.size
    if not fits or not 0 <= min(gap_x, gap_y) <= max(gap_x, gap_y) <= MAX_GAP:
        return None
    scale = min(1.0, SHEET_PICTURE / max(side_x, side_y))
    size = max(1, round(side_x * scale)), max(1, round(side_y * scale))
    sheet = Image.new("RGB", (columns * size[0], rows * size[1]))
    for row in range(rows):
        for column in range(columns):
            left, top = column * (side_x + gap_x), row * (side_y + gap_y)
            cut = pixels.crop((left, top, left + side_x, top + side_y))
            sheet.paste(cut.resize(size, Image.Resampling.LANCZOS), (column * size[0], row * size[1]))
    return Sheet(_encode(sheet, is_lossless=scale == 1.0), columns, *size)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height in px as boxes count them; None if the file is not there or broken."""
    pixels = _read(path)
    return pixels.size if pixels else None


def _read(path: Path) -> Image.Image | None:
    """The pixels of a file, turned as its EXIF data says; None if it is not there or broken."""
    try:
        return Image.fromarray(read_image(path))
    except (OSError, UnreadableImage):
        return None


def _encode(pixels: Image.Image, *, is_lossless: bool) -> EmbeddedImage:
    buffer = io.BytesIO()
    if is_lossless:
        pixels.save(buffer, "PNG", optimize=True)
    else:
        pixels.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return EmbeddedImage(f"data:image/{'png' if is_lossless else 'jpeg'};base64,{text}", *pixels.size)


def filmstrip(revealed_at: np.ndarray, grid: Sequence[int], num_steps: int, *, num_frames: int) -> list[Frame]:
    """Frames at evenly spaced steps, the last step included.

    `revealed_at` (h*w,) holds the step, from 0, that fixed each token.
    """
    height, width = grid
    order = np.asarray(revealed_at).reshape(height, width)
    steps = np.unique(np.linspace(1, num_steps, min(num_frames, num_steps)).round().astype(int))
    cell = FRAME_WIDTH / width
    return [Frame(int(step), float((order < step).mean()), cover_path(order >= step, cell)) for step in steps]


def cover_path(masked: np.ndarray, cell: float) -> str:
    """(h, w) bool -> one SVG path with a rectangle for each horizontal run of masked cells of side `cell`."""
    edges = np.diff(np.pad(masked.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, stops = np.argwhere(edges == 1), np.argwhere(edges == -1)
    return "".join(
        f"M{x * cell:g} {y * cell:g}h{(end - x) * cell:g}v{cell:g}H{x * cell:g}z"
        for (y, x), (_, end) in zip(starts.tolist(), stops.tolist())
    )
