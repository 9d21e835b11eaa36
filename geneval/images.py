"""Image files as GenEval sees them: upright RGB."""

import io
from pathlib import Path

import numpy as np


class UnreadableImage(ValueError):
    """A file that is there but does not decode."""


def read_image(path: Path) -> np.ndarray:
    """An image file -> (H, W, 3) uint8 RGB, turned as its EXIF data says; UnreadableImage when it does not decode."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    data = path.read_bytes()  # a failing disk is not a broken image: its OSError passes
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):  # Pillow would clip 16 bits to 8 instead of scaling them
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        raise UnreadableImage("not an image file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableImage(" ".join(str(error).split())) from None
