"""Small shards of captioned images: noise keyed by the number of a sample, in sizes and formats of one's choice."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genloop.data.shards import Sample, write_shard


def picture(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8"""
    return np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)


def encoded(image: np.ndarray, field: str) -> bytes:
    """An image as a file of that suffix."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(
        stream, {"jpg": "jpeg"}.get(field, field), **({"lossless": True} if field == "webp" else {})
    )
    return stream.getvalue()


def fields_of(number: int, size: tuple[int, int], field: str = "png") -> dict[str, bytes]:
    """Image and caption of a sample."""
    return {field: encoded(picture(number, *size), field), "txt": f"picture {number}".encode()}


def write_images(
    folder: Path, sizes: Sequence[tuple[int, int]], *, other: Mapping[int, Mapping[str, bytes]] | None = None
) -> Path:
    """One shard, sample n of size sizes[n] as png, webp and jpg in turn; `other`: fields of some samples -> folder"""
    given = other or {}
    samples = [
        Sample(f"{n:05d}", given.get(n) or fields_of(n, size, ("png", "webp", "jpg")[n % 3]))
        for n, size in enumerate(sizes)
    ]
    write_shard(folder / "00000.tar", samples)
    return folder
