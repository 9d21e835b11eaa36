"""Sizes of pictures: the aspect ratios of a variation, and the nearest size that Flux can draw of a given picture."""

import math

RATIOS = {  # name -> width, height
    "1:1": (1024, 1024),
    "16:9": (1344, 768),
    "9:16": (768, 1344),
    "2.4:1": (1536, 640),
    "3:4": (896, 1152),
    "4:3": (1152, 896),
}
MAX_PIXELS = 1_050_000
MULTIPLE = 16  # a token of Flux is 2 x 2 cells of a latent of 8 x 8 pixels


def fitting_size(width: int, height: int, *, max_pixels: int = MAX_PIXELS, multiple: int = MULTIPLE) -> tuple[int, int]:
    """(width, height) of a picture's copy to draw on: at most `max_pixels`, sides cut down to multiples.

    With multiple=8 that of the released code, whose pictures the pipelines then cut to 16. ValueError when a side is
    less than one multiple.
    """
    scale = math.sqrt(max_pixels / (width * height)) if width * height > max_pixels else 1.0
    sides = tuple(int(int(side * scale) // multiple * multiple) for side in (width, height))
    if min(sides) == 0:
        raise ValueError(f"a picture of {width}x{height} pixels is too small: a side needs at least {multiple}")
    return sides[0], sides[1]


def ratio_size(ratio: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of an aspect ratio, scaled down to at most `max_pixels`, as near as multiples of 16 allow."""
    if ratio not in RATIOS:
        raise ValueError(f"aspect_ratio: {ratio!r} is not one of {', '.join(RATIOS)}")
    scale = min(1.0, math.sqrt(max_pixels / math.prod(RATIOS[ratio])))
    for whole in (round, math.floor):
        width, height = (whole(side * scale / MULTIPLE) * MULTIPLE for side in RATIOS[ratio])
        if 0 < width * height <= max_pixels:
            return width, height
    raise ValueError(f"max_pixels: {max_pixels} is too few for {ratio}: a side needs at least {MULTIPLE}")
