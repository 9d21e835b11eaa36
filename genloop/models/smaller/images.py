"""How large a model takes its images: the files of image processors. No torch.

LLaVA-OneVision and InstructBLIP make every image a tile of one size; Qwen-VL takes any size between two areas.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.reading import read_object_or_empty

IMAGE_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_MOST, _LEAST = ("max_pixels", "longest_edge"), ("min_pixels", "shortest_edge")  # older names, newer ones in `size`
_SIDES = ("height", "width", "shortest_edge")


def check_area(folder: Path, side: int) -> None:
    """ValueError unless images of a Qwen-VL can be made to have at the most the area of a square of `side` pixels."""
    file = read_object_or_empty(folder / IMAGE_FILES[0]) or read_object_or_empty(folder / IMAGE_FILES[1])
    file = file.get("image_processor", file)
    sizes = {**(file.get("size") or {}), **file}
    most, least = (next((sizes[key] for key in keys if sizes.get(key)), None) for keys in (_MOST, _LEAST))
    if most is None:
        raise ValueError(f"image_size: {folder / IMAGE_FILES[0]} says no {' or '.join(_MOST)}")
    if not (least or 0) <= side**2 < most:
        raise ValueError(f"image_size: images have {least or 0} to {most} pixels, found {side} x {side}")


def reduced_images(
    file: Mapping[str, Any], *, side: int | None, tokens: int | None, fixed_tile: bool
) -> dict[str, Any]:
    """One of `IMAGE_FILES` for images of `side` pixels and `tokens` of a Q-Former, whichever keys it has."""
    found = dict(file)
    if tokens is not None and "num_query_tokens" in found:
        found["num_query_tokens"] = tokens
    if isinstance(found.get("image_processor"), dict):
        found["image_processor"] = reduced_images(
            found["image_processor"], side=side, tokens=tokens, fixed_tile=fixed_tile
        )
    if side is None:
        return found
    for key in ("size", "crop_size") if fixed_tile else ():
        if isinstance(found.get(key), dict):
            found[key] = found[key] | {edge: side for edge in _SIDES if edge in found[key]}
    if not fixed_tile:
        found |= {_MOST[0]: side**2} if found.get(_MOST[0]) else {}
        if isinstance(size := found.get("size"), dict) and size.get(_MOST[1]):
            found["size"] = size | {_MOST[1]: side**2}
    return found
